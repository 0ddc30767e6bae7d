//! Expressions with Python's operators.

use minijinja::machinery::Span;
use minijinja::machinery::ast::{
    self, BinOpKind, CallArg, CompareOpKind, Expr, Spanned, UnaryOpKind,
};
use minijinja::value::Value;

use super::{Result, Rewriter, refused};
use crate::template::literals;

/// The longest name of a variable or argument, in bytes. Variables are looked up again and again.
const LONGEST_NAME: usize = 1_000;

impl<'s> Rewriter<'s> {
    /// A constant, if both lexers read it alike.
    pub(super) fn constant(&self, node: &Spanned<ast::Const>) -> Result<Expr<'s>> {
        let span = node.span();
        let written = self
            .source
            .get(span.start_offset as usize..span.end_offset as usize);
        if let Some(problem) = literals::differs(written.unwrap_or_default()) {
            return Err(refused(problem, span));
        }
        Ok(constant(node.value.clone(), span))
    }

    pub(super) fn optional(&mut self, expression: &Option<Expr<'s>>) -> Result<Option<Expr<'s>>> {
        expression
            .as_ref()
            .map(|expression| self.expression(expression))
            .transpose()
    }

    fn expressions(&mut self, expressions: &[Expr<'s>]) -> Result<Vec<Expr<'s>>> {
        expressions
            .iter()
            .map(|expression| self.expression(expression))
            .collect()
    }

    pub(super) fn expression(&mut self, expression: &Expr<'s>) -> Result<Expr<'s>> {
        let span = expression.span();
        Ok(match expression {
            Expr::Var(node) => variable(short(node.id, span)?, span),
            Expr::Const(node) => self.constant(node)?,
            Expr::Slice(node) => {
                let value = self.expression(&node.expr)?;
                let bounds = [&node.start, &node.stop, &node.step];
                let none = || constant(Value::from(()), span);
                let bounds = bounds
                    .into_iter()
                    .map(|bound| Ok(self.optional(bound)?.unwrap_or_else(none)))
                    .collect::<Result<Vec<_>>>()?;
                filter("[:]", value, bounds, span)
            }
            Expr::UnaryOp(node) => {
                let value = self.expression(&node.expr)?;
                match node.op {
                    UnaryOpKind::Not => Expr::UnaryOp(Spanned::new(
                        ast::UnaryOp {
                            op: UnaryOpKind::Not,
                            expr: value,
                        },
                        span,
                    )),
                    UnaryOpKind::Neg => filter("-x", value, Vec::new(), span),
                }
            }
            Expr::BinOp(node) => {
                let left = self.expression(&node.left)?;
                let right = self.expression(&node.right)?;
                match operator(node.op) {
                    Some(name) => filter(name, left, vec![right], span),
                    None => {
                        // Constants would be folded, and not to what Python says.
                        let left = filter("@and", left, Vec::new(), span);
                        let op = node.op;
                        Expr::BinOp(Spanned::new(ast::BinOp { op, left, right }, span))
                    }
                }
            }
            Expr::Compare(node) => {
                let first = self.expression(&node.expr)?;
                let mut rest = Vec::with_capacity(node.ops.len() * 2);
                for compared in &node.ops {
                    rest.push(constant(Value::from(comparison(compared.op)), span));
                    rest.push(self.expression(&compared.expr)?);
                }
                filter("<<", first, rest, span)
            }
            Expr::IfExpr(node) => Expr::IfExpr(Spanned::new(
                ast::IfExpr {
                    test_expr: self.expression(&node.test_expr)?,
                    true_expr: self.expression(&node.true_expr)?,
                    false_expr: self.optional(&node.false_expr)?,
                },
                span,
            )),
            Expr::Filter(node) => {
                let expr = self.optional(&node.expr)?;
                let new = ast::Filter {
                    name: node.name,
                    expr: expr.map(|value| filter("@sized", value, Vec::new(), span)),
                    args: self.arguments(&node.args)?,
                };
                Expr::Filter(Spanned::new(new, span))
            }
            Expr::Test(node) => {
                let value = self.expression(&node.expr)?;
                let new = ast::Test {
                    name: node.name,
                    expr: filter("@sized", value, Vec::new(), span),
                    args: self.arguments(&node.args)?,
                };
                Expr::Test(Spanned::new(new, span))
            }
            Expr::GetAttr(node) => {
                let value = self.expression(&node.expr)?;
                let name = constant(Value::from(node.name), span);
                filter(".", value, vec![name], span)
            }
            Expr::GetItem(node) => {
                let value = self.expression(&node.expr)?;
                let key = self.expression(&node.subscript_expr)?;
                filter("[]", value, vec![key], span)
            }
            Expr::Call(node) => self.call(node, span)?,
            Expr::List(node) => {
                let start = span.start_offset as usize;
                let is_list = self.source.as_bytes().get(start) == Some(&b'[');
                let items = self.expressions(&node.items)?;
                let list = Expr::List(Spanned::new(ast::List { items }, span));
                filter(if is_list { "[,]" } else { "(,)" }, list, Vec::new(), span)
            }
            Expr::Map(node) => {
                let keys = self.expressions(&node.keys)?;
                let values = self.expressions(&node.values)?;
                let map = Expr::Map(Spanned::new(ast::Map { keys, values }, span));
                filter("{,}", map, Vec::new(), span)
            }
        })
    }

    /// Methods become a filter; all else that is called stays a call.
    pub(super) fn call(&mut self, node: &ast::Call<'s>, span: Span) -> Result<Expr<'s>> {
        let mut args = self.arguments(&node.args)?;
        let expr = match &node.expr {
            Expr::GetAttr(method) => {
                if matches!(&method.expr, Expr::Var(var) if var.id == "loop") {
                    if args.is_empty() {
                        return Err(refused("loop.cycle() without a value", span));
                    }
                    if method.name == "changed" {
                        // What is passed is kept and compared in each round.
                        args = passed_through("@whole", args, span);
                    }
                    let expr = variable("loop", span);
                    let name = method.name;
                    Expr::GetAttr(Spanned::new(ast::GetAttr { expr, name }, span))
                } else {
                    let value = self.expression(&method.expr)?;
                    let name = constant(Value::from(method.name), span);
                    args.insert(0, CallArg::Pos(name));
                    let call = ast::Filter {
                        name: "()",
                        expr: Some(value),
                        args,
                    };
                    return Ok(Expr::Filter(Spanned::new(call, span)));
                }
            }
            Expr::Var(node) if node.id == "loop" => {
                // A recursive loop starts over with its only argument.
                args = passed_through("@for", args, span);
                variable(node.id, span)
            }
            other => self.expression(other)?,
        };
        Ok(Expr::Call(Spanned::new(ast::Call { expr, args }, span)))
    }

    fn arguments(&mut self, arguments: &[CallArg<'s>]) -> Result<Vec<CallArg<'s>>> {
        arguments
            .iter()
            .map(|argument| {
                Ok(match argument {
                    CallArg::Pos(value) => CallArg::Pos(self.expression(value)?),
                    CallArg::Kwarg(name, value) => {
                        let value = self.expression(value)?;
                        CallArg::Kwarg(short(name, value.span())?, value)
                    }
                    CallArg::PosSplat(value) => {
                        let span = value.span();
                        let value = self.expression(value)?;
                        CallArg::PosSplat(filter("@for", value, Vec::new(), span))
                    }
                    CallArg::KwargSplat(value) => {
                        let span = value.span();
                        let value = self.expression(value)?;
                        CallArg::KwargSplat(filter("@whole", value, Vec::new(), span))
                    }
                })
            })
            .collect()
    }
}

/// Arguments of which those by position go through a filter.
fn passed_through<'s>(
    name: &'static str,
    arguments: Vec<CallArg<'s>>,
    span: Span,
) -> Vec<CallArg<'s>> {
    let arguments = arguments.into_iter();
    arguments
        .map(|argument| match argument {
            CallArg::Pos(value) => CallArg::Pos(filter(name, value, Vec::new(), span)),
            other => other,
        })
        .collect()
}

/// A name that is no work to look up.
fn short(name: &str, span: Span) -> Result<&str> {
    if name.len() > LONGEST_NAME {
        return Err(refused("a name this long", span));
    }
    Ok(name)
}

/// The filter for an operator; `and` and `or` decide what is computed, and stay.
fn operator(kind: BinOpKind) -> Option<&'static str> {
    Some(match kind {
        BinOpKind::ScAnd | BinOpKind::ScOr => return None,
        BinOpKind::Eq => "==",
        BinOpKind::Ne => "!=",
        BinOpKind::Lt => "<",
        BinOpKind::Lte => "<=",
        BinOpKind::Gt => ">",
        BinOpKind::Gte => ">=",
        BinOpKind::In => "in",
        BinOpKind::Add => "+",
        BinOpKind::Sub => "-",
        BinOpKind::Mul => "*",
        BinOpKind::Div => "/",
        BinOpKind::FloorDiv => "//",
        BinOpKind::Rem => "%",
        BinOpKind::Pow => "**",
        BinOpKind::Concat => "~",
    })
}

fn comparison(kind: CompareOpKind) -> &'static str {
    match kind {
        CompareOpKind::Eq => "==",
        CompareOpKind::Ne => "!=",
        CompareOpKind::Lt => "<",
        CompareOpKind::Lte => "<=",
        CompareOpKind::Gt => ">",
        CompareOpKind::Gte => ">=",
        CompareOpKind::In => "in",
        CompareOpKind::NotIn => "not in",
    }
}

pub(super) fn filter<'s>(
    name: &'s str,
    value: Expr<'s>,
    args: Vec<Expr<'s>>,
    span: Span,
) -> Expr<'s> {
    let args = args.into_iter().map(CallArg::Pos).collect();
    let expr = Some(value);
    Expr::Filter(Spanned::new(ast::Filter { name, expr, args }, span))
}

pub(super) fn variable(id: &str, span: Span) -> Expr<'_> {
    Expr::Var(Spanned::new(ast::Var { id }, span))
}

pub(super) fn constant<'s>(value: Value, span: Span) -> Expr<'s> {
    Expr::Const(Spanned::new(ast::Const { value }, span))
}

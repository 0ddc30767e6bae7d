//! A parsed template with Python's operators in place of `minijinja`'s.
//!
//! Operators become filters whose names no template can write (`+`, `[]` and so on): they are found
//! without a look at variables. What is passed to filters, tests and methods goes through a filter
//! that counts its size.

use minijinja::machinery::Span;
use minijinja::machinery::ast::{
    self, BinOpKind, CallArg, CompareOpKind, Expr, Spanned, Stmt, UnaryOpKind,
};
use minijinja::value::Value;

use super::{literals, tags};
use crate::error::TemplateError;

/// Text of a template that is longer is written as a value, so that it is counted.
const SHORT_TEXT: usize = 256;

/// The template with Python's operators, and whether it has `{% generation %}` tags.
pub(super) fn rewrite<'s>(template: &Stmt<'s>, source: &'s str) -> Result<(Stmt<'s>, bool)> {
    let mut rewriter = Rewriter {
        source,
        has_generation: false,
    };
    let template = rewriter.statement(template)?;
    Ok((template, rewriter.has_generation))
}

struct Rewriter<'s> {
    source: &'s str,
    has_generation: bool,
}

type Result<T> = std::result::Result<T, TemplateError>;

impl<'s> Rewriter<'s> {
    fn statement(&mut self, statement: &Stmt<'s>) -> Result<Stmt<'s>> {
        macro_rules! node {
            ($variant:ident, $node:expr, $new:expr) => {
                Stmt::$variant(Spanned::new($new, $node.span()))
            };
        }
        Ok(match statement {
            Stmt::Template(node) => node!(
                Template,
                node,
                ast::Template {
                    children: self.body(&node.children)?,
                }
            ),
            Stmt::EmitExpr(node) => node!(
                EmitExpr,
                node,
                ast::EmitExpr {
                    expr: self.expression(&node.expr)?,
                }
            ),
            Stmt::EmitRaw(node) if node.raw.len() > SHORT_TEXT => node!(
                EmitExpr,
                node,
                ast::EmitExpr {
                    expr: constant(Value::from(node.raw), node.span()),
                }
            ),
            Stmt::EmitRaw(node) => node!(EmitRaw, node, ast::EmitRaw { raw: node.raw }),
            Stmt::ForLoop(node) => node!(
                ForLoop,
                node,
                ast::ForLoop {
                    target: self.target(&node.target),
                    iter: filter(
                        "@for",
                        self.expression(&node.iter)?,
                        Vec::new(),
                        node.span()
                    ),
                    filter_expr: self.optional(&node.filter_expr)?,
                    recursive: node.recursive,
                    body: self.body(&node.body)?,
                    else_body: self.body(&node.else_body)?,
                }
            ),
            Stmt::IfCond(node) => node!(
                IfCond,
                node,
                ast::IfCond {
                    expr: self.expression(&node.expr)?,
                    true_body: self.body(&node.true_body)?,
                    false_body: self.body(&node.false_body)?,
                }
            ),
            Stmt::WithBlock(node) => {
                // All values are computed before the first one is assigned.
                let (mut targets, mut values) = (Vec::new(), Vec::new());
                for (target, value) in &node.assignments {
                    targets.push(self.target(target));
                    values.push(self.expression(value)?);
                }
                let list = |items| Expr::List(Spanned::new(ast::List { items }, node.span()));
                let assignments = match values.is_empty() {
                    true => Vec::new(),
                    false => vec![(list(targets), list(values))],
                };
                let body = self.body(&node.body)?;
                node!(WithBlock, node, ast::WithBlock { assignments, body })
            }
            Stmt::Set(node) => node!(
                Set,
                node,
                ast::Set {
                    target: self.target(&node.target),
                    expr: self.expression(&node.expr)?,
                }
            ),
            Stmt::SetBlock(node) => node!(
                SetBlock,
                node,
                ast::SetBlock {
                    target: self.target(&node.target),
                    filter: self.optional(&node.filter)?,
                    body: self.scope(&node.body, node.span())?,
                }
            ),
            Stmt::FilterBlock(node) => {
                self.has_generation |=
                    matches!(&node.filter, Expr::Filter(filter) if filter.name == tags::FILTER);
                node!(
                    FilterBlock,
                    node,
                    ast::FilterBlock {
                        filter: self.expression(&node.filter)?,
                        body: self.scope(&node.body, node.span())?,
                    }
                )
            }
            Stmt::Block(node) => return Err(refused("{% block %}", node.span())),
            Stmt::Macro(node) => Stmt::Macro(self.macro_of(node)?),
            Stmt::CallBlock(node) => {
                let call = &node.call;
                let call = match self.call(call, call.span())? {
                    Expr::Call(call) => call,
                    _ => return Err(refused("{% call %} of a method", node.span())),
                };
                let macro_decl = self.macro_of(&node.macro_decl)?;
                node!(CallBlock, node, ast::CallBlock { call, macro_decl })
            }
            Stmt::Continue(node) => node!(Continue, node, ast::Continue),
            Stmt::Break(node) => node!(Break, node, ast::Break),
            Stmt::AutoEscape(node) => return Err(refused("{% autoescape %}", node.span())),
            Stmt::Import(node) => return Err(refused("{% import %}", node.span())),
            Stmt::FromImport(node) => return Err(refused("{% from %}", node.span())),
            Stmt::Extends(node) => return Err(refused("{% extends %}", node.span())),
            Stmt::Include(node) => return Err(refused("{% include %}", node.span())),
            Stmt::Do(node) => return Err(refused("{% do %}", node.span())),
        })
    }

    fn body(&mut self, statements: &[Stmt<'s>]) -> Result<Vec<Stmt<'s>>> {
        statements
            .iter()
            .map(|statement| self.statement(statement))
            .collect()
    }

    /// Statements whose variables end with them.
    fn scope(&mut self, statements: &[Stmt<'s>], span: Span) -> Result<Vec<Stmt<'s>>> {
        let scope = ast::WithBlock {
            assignments: Vec::new(),
            body: self.body(statements)?,
        };
        Ok(vec![Stmt::WithBlock(Spanned::new(scope, span))])
    }

    fn macro_of(&mut self, node: &Spanned<ast::Macro<'s>>) -> Result<Spanned<ast::Macro<'s>>> {
        let args = node.args.iter().map(|name| self.target(name)).collect();
        let mut body = Vec::new();
        let mut defaults = Vec::new();
        let with_default = node.args.len().saturating_sub(node.defaults.len());
        for (name, default) in node.args.iter().skip(with_default).zip(&node.defaults) {
            if let Expr::Const(node) = default {
                defaults.push(self.constant(node)?);
            } else {
                // A default may name arguments before it, so it is computed among them.
                defaults.push(constant(Value::UNDEFINED, node.span()));
                body.push(self.set_default(name, default)?);
            }
        }
        body.extend(self.body(&node.body)?);
        let declared = ast::Macro {
            name: node.name,
            args,
            defaults,
            body,
        };
        Ok(Spanned::new(declared, node.span()))
    }

    /// `{% if name is undefined %}{% set name = default %}{% endif %}`.
    fn set_default(&mut self, name: &Expr<'s>, default: &Expr<'s>) -> Result<Stmt<'s>> {
        let span = name.span();
        let set = ast::Set {
            target: self.target(name),
            expr: self.expression(default)?,
        };
        let test = ast::Test {
            name: "undefined",
            expr: self.target(name),
            args: Vec::new(),
        };
        let condition = ast::IfCond {
            expr: Expr::Test(Spanned::new(test, span)),
            true_body: vec![Stmt::Set(Spanned::new(set, span))],
            false_body: Vec::new(),
        };
        Ok(Stmt::IfCond(Spanned::new(condition, span)))
    }

    /// A constant, if both lexers read it alike.
    fn constant(&self, node: &Spanned<ast::Const>) -> Result<Expr<'s>> {
        let span = node.span();
        let written = self
            .source
            .get(span.start_offset as usize..span.end_offset as usize);
        if let Some(problem) = literals::differs(written.unwrap_or_default()) {
            return Err(refused(problem, span));
        }
        Ok(constant(node.value.clone(), span))
    }

    /// What is assigned to stays as it is.
    fn target(&self, target: &Expr<'s>) -> Expr<'s> {
        match target {
            Expr::Var(node) => variable(node.id, node.span()),
            Expr::GetAttr(node) => {
                let expr = self.target(&node.expr);
                let name = node.name;
                Expr::GetAttr(Spanned::new(ast::GetAttr { expr, name }, node.span()))
            }
            Expr::List(node) => {
                let items = node.items.iter().map(|item| self.target(item)).collect();
                Expr::List(Spanned::new(ast::List { items }, node.span()))
            }
            other => constant(Value::UNDEFINED, other.span()),
        }
    }

    fn optional(&mut self, expression: &Option<Expr<'s>>) -> Result<Option<Expr<'s>>> {
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

    fn expression(&mut self, expression: &Expr<'s>) -> Result<Expr<'s>> {
        let span = expression.span();
        Ok(match expression {
            Expr::Var(node) => variable(node.id, span),
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
    fn call(&mut self, node: &ast::Call<'s>, span: Span) -> Result<Expr<'s>> {
        let mut args = self.arguments(&node.args)?;
        let expr = match &node.expr {
            Expr::GetAttr(method) => {
                if matches!(&method.expr, Expr::Var(var) if var.id == "loop") {
                    if args.is_empty() {
                        return Err(refused("loop.cycle() without a value", span));
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
                for arg in &mut args {
                    if let CallArg::Pos(value) = arg {
                        let unused = constant(Value::UNDEFINED, span);
                        let value = std::mem::replace(value, unused);
                        *arg = CallArg::Pos(filter("@for", value, Vec::new(), span));
                    }
                }
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
                    CallArg::Kwarg(name, value) => CallArg::Kwarg(name, self.expression(value)?),
                    CallArg::PosSplat(value) => CallArg::PosSplat(self.expression(value)?),
                    CallArg::KwargSplat(value) => CallArg::KwargSplat(self.expression(value)?),
                })
            })
            .collect()
    }
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

fn filter<'s>(name: &'s str, value: Expr<'s>, args: Vec<Expr<'s>>, span: Span) -> Expr<'s> {
    let args = args.into_iter().map(CallArg::Pos).collect();
    let expr = Some(value);
    Expr::Filter(Spanned::new(ast::Filter { name, expr, args }, span))
}

fn variable(id: &str, span: Span) -> Expr<'_> {
    Expr::Var(Spanned::new(ast::Var { id }, span))
}

fn constant<'s>(value: Value, span: Span) -> Expr<'s> {
    Expr::Const(Spanned::new(ast::Const { value }, span))
}

fn refused(what: &str, span: Span) -> TemplateError {
    TemplateError::unsupported(what, u32::from(span.start_line))
}

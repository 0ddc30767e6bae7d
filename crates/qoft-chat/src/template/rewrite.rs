//! A parsed template with Python's operators in place of `minijinja`'s.
//!
//! Operators become filters whose names no template can write (`+`, `[]` and so on): they are found
//! without a look at variables. What is passed to filters, tests and methods goes through a filter
//! that counts its size.

mod expressions;

use minijinja::machinery::Span;
use minijinja::machinery::ast::{self, Expr, Spanned, Stmt};
use minijinja::value::Value;

use super::tags;
use crate::error::TemplateError;
use expressions::{constant, filter, variable};

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
            Stmt::Set(node) if is_hidden(&node.target) => {
                return Err(refused(
                    "an attribute of a namespace with _ in front",
                    node.span(),
                ));
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
}

/// transformers keeps attributes that begin with `_` out of namespaces.
fn is_hidden(target: &Expr<'_>) -> bool {
    match target {
        Expr::GetAttr(node) => node.name.starts_with('_'),
        Expr::List(node) => node.items.iter().any(is_hidden),
        _ => false,
    }
}

fn refused(what: &str, span: Span) -> TemplateError {
    TemplateError::unsupported(what, u32::from(span.start_line))
}

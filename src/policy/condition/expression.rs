//! One CEL expression, parsed, bounded and checked when the policy is loaded.

use std::fmt;
use std::sync::Arc;

use cel::common::ast::Expr;
use cel::extractors::This;
use cel::parser::PrattParser;
use cel::{Context, ExecutionError, IdedExpr, Value};
use regex::Regex;

use super::check::{self, Findings, Type};
use super::inputs::{Roots, Variables};
use crate::policy::BadSyntax;

/// Longest expression, in bytes.
pub const EXPRESSION_BYTES_MAX: usize = 2048;
/// Nested parentheses, calls and operators at most.
pub(super) const DEPTH_MAX: u16 = 32;
/// Literals, names, operators and calls at most: with no loops in it, an expression costs at most so many steps, each
/// at most as long as the longest input.
pub(super) const NODES_MAX: usize = 256;

/// An expression whose names and types are known to be right.
#[derive(Clone)]
pub struct Expression(Arc<Checked>);

struct Checked {
    source: Box<str>,
    expression: IdedExpr,
    roots: Roots,
    /// The patterns of `matches`, compiled once.
    patterns: Vec<Regex>,
}

impl Expression {
    /// Parses a condition: what it gives is true or false.
    ///
    /// # Errors
    /// [`BadSyntax`]: it cannot be parsed, names what is not there, or its types do not fit.
    pub fn condition(source: &str, variables: &Variables<'_>) -> Result<Self, BadSyntax> {
        let (parsed, kind) = Self::parse(source, variables)?;
        if kind != Type::Bool {
            return Err(BadSyntax(format!("gives {kind}, and a condition gives true or false")));
        }
        Ok(parsed)
    }

    /// Parses the name of one input: `body.amount`, `nonce.labels.team`.
    ///
    /// # Errors
    /// [`BadSyntax`]: as for a condition, or it is more than a name.
    pub fn input(source: &str, variables: &Variables<'_>) -> Result<Self, BadSyntax> {
        let (parsed, kind) = Self::parse(source, variables)?;
        if !is_name(&parsed.0.expression.expr) {
            return Err(BadSyntax("is not the name of an input, as in `body.amount`".to_owned()));
        }
        match kind {
            Type::Bool | Type::Int | Type::Number | Type::Text => Ok(parsed),
            Type::List(_) | Type::Table | Type::Record(_) | Type::Opaque => {
                Err(BadSyntax(format!("is {kind}; what is recorded is one text, number or truth value")))
            }
        }
    }

    fn parse(source: &str, variables: &Variables<'_>) -> Result<(Self, Type), BadSyntax> {
        if source.len() > EXPRESSION_BYTES_MAX {
            return Err(BadSyntax(format!("an expression has at most {EXPRESSION_BYTES_MAX} bytes")));
        }
        let parser = PrattParser::new().max_recursion_depth(DEPTH_MAX).max_expression_node_count(NODES_MAX);
        let expression = parser.error_recovery_limit(0).parse(source).map_err(|errors| {
            let first = errors.errors.iter().find(|error| error.pos.0 > 0).or(errors.errors.first());
            BadSyntax(first.map_or_else(
                || "is no CEL expression".to_owned(),
                |error| format!("is no CEL expression: column {}: {}", error.pos.1, one_line(&error.msg)),
            ))
        })?;
        let Findings { kind, roots, patterns } = check::check(&expression, variables)?;
        Ok((Self(Arc::new(Checked { source: source.into(), expression, roots, patterns })), kind))
    }

    /// As the policy spells it.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.0.source
    }

    pub(super) fn roots(&self) -> Roots {
        self.0.roots
    }

    /// True or false; `None` if it cannot be evaluated.
    pub(super) fn holds(&self, mut context: Context<'_, '_>) -> Option<bool> {
        if !self.0.patterns.is_empty() {
            let own = Arc::clone(&self.0);
            let matches = move |This(text): This<Arc<String>>, pattern: Arc<String>| own.matches(&text, &pattern);
            context.add_function("matches", matches).ok()?;
        }
        match context.resolve(&self.0.expression) {
            Ok(Value::Bool(value)) => Some(value),
            Ok(_) | Err(_) => None,
        }
    }

    /// The value of an input; `None` if it is not there.
    pub(super) fn text(&self, context: &Context<'_, '_>) -> Option<String> {
        match context.resolve(&self.0.expression).ok()? {
            Value::Bool(value) => Some(value.to_string()),
            Value::Int(value) => Some(value.to_string()),
            Value::Float(value) => Some(value.to_string()),
            Value::String(text) => Some(text.to_string()),
            _ => None,
        }
    }
}

impl Checked {
    /// `text.matches(pattern)`, with one of the expression's own patterns.
    fn matches(&self, text: &str, pattern: &str) -> Result<bool, ExecutionError> {
        let known = self.patterns.iter().find(|known| known.as_str() == pattern);
        let known =
            known.ok_or_else(|| ExecutionError::function_error("matches", "a pattern that nobody has checked"))?;
        Ok(known.is_match(text))
    }
}

fn is_name(expression: &Expr) -> bool {
    match expression {
        Expr::Ident(_) => true,
        Expr::Select(select) => !select.test && is_name(&select.operand.expr),
        Expr::Call(call) => match call.args.as_slice() {
            [place, key] if call.func_name == cel::common::ast::operators::INDEX => {
                is_name(&place.expr) && matches!(key.expr, Expr::Literal(_))
            }
            _ => false,
        },
        _ => false,
    }
}

fn one_line(text: &str) -> String {
    text.chars().take(120).flat_map(char::escape_debug).collect::<String>().replace("\\'", "'").replace("\\\"", "\"")
}

/// Lengths only: conditions are not for logs.
impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Expression({} bytes)", self.0.source.len())
    }
}

//! The types of an expression. What is not listed here is not taken, so that cost and meaning are known beforehand.

use std::fmt;

use cel::IdedExpr;
use cel::common::ast::{CallExpr, Expr, ListExpr, LiteralValue, SelectExpr, operators};
use regex::{Regex, RegexBuilder};

use super::expression::NODES_MAX;
use super::inputs::{Root, Roots, Variables};
use crate::policy::BadSyntax;

/// Longest pattern of `matches`, in bytes.
const PATTERN_BYTES_MAX: usize = 128;
/// Memory of a compiled pattern at most, in bytes.
const PATTERN_SIZE_MAX: usize = 64 * 1024;
/// Memory of what a pattern's search has learnt of texts at most, in bytes, for each thread. With less some patterns of the
/// size above are searched state by state: 17 µs a byte instead of 9 ns.
const PATTERN_MEMORY_MAX: usize = 256 * 1024;

/// What an expression gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Type {
    Bool,
    Int,
    Number,
    Text,
    List(Box<Type>),
    /// Names with texts.
    Table,
    /// One of the named inputs as a whole.
    Record(Root),
    /// Something whose shape nobody has declared.
    Opaque,
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool => f.write_str("a truth value"),
            Self::Int => f.write_str("an int"),
            Self::Number => f.write_str("a number"),
            Self::Text => f.write_str("a string"),
            Self::List(_) => f.write_str("a list"),
            Self::Table => f.write_str("a map of strings"),
            Self::Record(_) => f.write_str("a group of inputs"),
            Self::Opaque => f.write_str("of no declared type"),
        }
    }
}

fn bad<T>(sentence: impl Into<String>) -> Result<T, BadSyntax> {
    Err(BadSyntax(sentence.into()))
}

/// What is known of an expression before it is evaluated.
pub(super) struct Findings {
    /// Its type.
    pub(super) kind: Type,
    /// Which inputs it reads.
    pub(super) roots: Roots,
    /// The patterns of `matches`, as they are written and compiled.
    pub(super) patterns: Vec<Regex>,
}

/// Checks an expression's names, types and patterns.
pub(super) fn check(expression: &IdedExpr, variables: &Variables<'_>) -> Result<Findings, BadSyntax> {
    let mut checker = Checker { variables, nodes: 0, roots: Roots::default(), patterns: Vec::new() };
    let kind = checker.of(expression)?;
    Ok(Findings { kind, roots: checker.roots, patterns: checker.patterns })
}

struct Checker<'a> {
    variables: &'a Variables<'a>,
    nodes: usize,
    roots: Roots,
    patterns: Vec<Regex>,
}

impl Checker<'_> {
    /// As deep as the parser let it be.
    fn of(&mut self, expression: &IdedExpr) -> Result<Type, BadSyntax> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return bad(format!("an expression has at most {NODES_MAX} parts"));
        }
        match &expression.expr {
            Expr::Literal(literal) => of_literal(literal),
            Expr::Ident(name) => self.of_name(name),
            Expr::Select(select) => self.of_select(select),
            Expr::List(list) => self.of_list(list),
            Expr::Call(call) => self.of_call(call),
            Expr::Comprehension(_) => bad("loops (all, exists, exists_one, map, filter) are not taken; `in` is"),
            Expr::Map(_) | Expr::Struct(_) => bad("maps and messages cannot be written in a condition"),
            Expr::Unspecified => bad("is not whole"),
        }
    }

    fn of_name(&mut self, name: &str) -> Result<Type, BadSyntax> {
        let root = Root::parse(name)?;
        self.roots.add(root);
        Ok(match root {
            Root::Now => Type::Int,
            Root::Risk => Type::Text,
            Root::Request | Root::Path | Root::Body | Root::Nonce => Type::Record(root),
        })
    }

    fn of_select(&mut self, select: &SelectExpr) -> Result<Type, BadSyntax> {
        let place = self.of(&select.operand)?;
        let field = self.field(&place, &select.field)?;
        if select.test && matches!(place, Type::Record(Root::Request | Root::Path)) {
            // What it would ask is whether the request can be judged, and then nothing would be left to judge it by.
            return bad(format!(
                "has(…) does not go with `{}`: where nobody can tell what it is, the condition is not to be decided",
                short(&select.field)
            ));
        }
        Ok(if select.test { Type::Bool } else { field })
    }

    fn field(&self, place: &Type, name: &str) -> Result<Type, BadSyntax> {
        match place {
            Type::Record(root) => self.variables.field(*root, name),
            Type::Table => Ok(Type::Text),
            Type::Bool | Type::Int | Type::Number | Type::Text | Type::List(_) | Type::Opaque => {
                bad(format!("`{}` is looked for in what is {place}", short(name)))
            }
        }
    }

    fn of_list(&mut self, list: &ListExpr) -> Result<Type, BadSyntax> {
        let mut known: Option<Type> = None;
        for element in &list.elements {
            let kind = self.of(element)?;
            if !is_scalar(&kind) || known.as_ref().is_some_and(|known| *known != kind) {
                return bad("a list holds strings, or ints, or numbers, and nothing else beside them");
            }
            known = Some(kind);
        }
        known.map_or_else(|| bad("a list is empty"), |kind| Ok(Type::List(Box::new(kind))))
    }

    fn of_call(&mut self, call: &CallExpr) -> Result<Type, BadSyntax> {
        let operands = call.target.iter().map(|target| &**target).chain(&call.args);
        let kinds = operands.map(|operand| self.of(operand)).collect::<Result<Vec<_>, _>>()?;
        let name = call.func_name.as_str();
        if call.target.is_none() && name == operators::INDEX {
            return self.of_index(call, &kinds);
        }
        let given = match (call.target.is_some(), kinds.as_slice()) {
            (true, [Type::Text, Type::Text]) if name == "matches" => {
                self.patterns.push(pattern(call)?);
                return Ok(Type::Bool);
            }
            (false, kinds) => of_operator(name, kinds).or_else(|| of_function(name, kinds)),
            (true, kinds) => of_function(name, kinds),
        };
        given.map_or_else(|| bad(misfit(name, &kinds)), Ok)
    }

    fn of_index(&self, call: &CallExpr, kinds: &[Type]) -> Result<Type, BadSyntax> {
        match (kinds, call.args.get(1).map(|key| &key.expr)) {
            ([place @ Type::Record(_), _], Some(Expr::Literal(LiteralValue::String(name)))) => {
                self.field(place, name.inner())
            }
            ([Type::Table, Type::Text], _) => Ok(Type::Text),
            ([Type::List(element), Type::Int], _) => Ok((**element).clone()),
            _ => bad(misfit("[]", kinds)),
        }
    }
}

fn of_literal(literal: &LiteralValue) -> Result<Type, BadSyntax> {
    match literal {
        LiteralValue::Boolean(_) => Ok(Type::Bool),
        LiteralValue::Double(_) => Ok(Type::Number),
        LiteralValue::Int(_) => Ok(Type::Int),
        LiteralValue::String(_) => Ok(Type::Text),
        LiteralValue::Bytes(_) | LiteralValue::Null | LiteralValue::UInt(_) => {
            bad("bytes, null and unsigned numbers are no inputs: has(…) says whether something is there")
        }
    }
}

fn is_scalar(kind: &Type) -> bool {
    matches!(kind, Type::Int | Type::Number | Type::Text)
}

fn of_operator(name: &str, kinds: &[Type]) -> Option<Type> {
    match (name, kinds) {
        (operators::LOGICAL_NOT, [Type::Bool])
        | (operators::LOGICAL_AND | operators::LOGICAL_OR, [Type::Bool, Type::Bool]) => Some(Type::Bool),
        (operators::CONDITIONAL, [Type::Bool, one, other]) if one == other && *one != Type::Opaque => Some(one.clone()),
        (operators::EQUALS | operators::NOT_EQUALS, [one, other])
            if one == other && (is_scalar(one) || matches!(one, Type::Bool | Type::List(_))) =>
        {
            Some(Type::Bool)
        }
        (operators::LESS | operators::LESS_EQUALS | operators::GREATER | operators::GREATER_EQUALS, [one, other])
            if one == other && is_scalar(one) =>
        {
            Some(Type::Bool)
        }
        // No `+` for texts: they would grow.
        (operators::ADD | operators::SUBSTRACT | operators::MULTIPLY | operators::DIVIDE, [one, other])
            if one == other && matches!(one, Type::Int | Type::Number) =>
        {
            Some(one.clone())
        }
        (operators::MODULO, [Type::Int, Type::Int]) => Some(Type::Int),
        (operators::NEGATE, [one @ (Type::Int | Type::Number)]) => Some(one.clone()),
        (operators::IN, [Type::Text, Type::Table]) => Some(Type::Bool),
        (operators::IN, [one, Type::List(element)]) if *one == **element => Some(Type::Bool),
        _ => None,
    }
}

/// Called as `size(x)` or `x.size()`; the others only on a text.
fn of_function(name: &str, kinds: &[Type]) -> Option<Type> {
    match (name, kinds) {
        ("size", [Type::Text | Type::List(_) | Type::Table]) => Some(Type::Int),
        ("startsWith" | "endsWith" | "contains", [Type::Text, Type::Text]) => Some(Type::Bool),
        _ => None,
    }
}

/// `text.matches('…')`: the pattern stands in the policy, and is small. Its search takes time in proportion to the text.
fn pattern(call: &CallExpr) -> Result<Regex, BadSyntax> {
    let [IdedExpr { expr: Expr::Literal(LiteralValue::String(pattern)), .. }] = call.args.as_slice() else {
        return bad("the pattern of matches() is written out, and never an input");
    };
    let pattern = pattern.inner();
    if pattern.len() > PATTERN_BYTES_MAX {
        return bad(format!("a pattern has at most {PATTERN_BYTES_MAX} bytes"));
    }
    let compiled = RegexBuilder::new(pattern).size_limit(PATTERN_SIZE_MAX).dfa_size_limit(PATTERN_MEMORY_MAX).build();
    compiled.map_err(|error| {
        let why = match error {
            regex::Error::CompiledTooBig(_) => "the pattern of matches() repeats too much",
            _ => "the pattern of matches() is no regular expression",
        };
        BadSyntax(why.to_owned())
    })
}

/// Why a call is not taken.
fn misfit(name: &str, kinds: &[Type]) -> String {
    let shown = name.trim_matches(['_', '@']);
    match kinds {
        [Type::Int, Type::Number] | [Type::Number, Type::Int] => {
            format!("`{shown}` between an int and a number: write 5.0 where a number is meant")
        }
        [Type::Text, Type::Text] if name == operators::ADD => "strings are not joined in a condition".to_owned(),
        _ => {
            let kinds: Vec<_> = kinds.iter().map(ToString::to_string).collect();
            format!("`{}` does not go with {}", short(shown), kinds.join(" and "))
        }
    }
}

/// A name of the policy for a sentence.
fn short(name: &str) -> String {
    name.chars().take(64).flat_map(char::escape_debug).collect()
}

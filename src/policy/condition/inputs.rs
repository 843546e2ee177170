//! What expressions can name, with its type when the policy is loaded and its value when a request is judged.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use cel::objects::{Key, Map};
use cel::{Context, Env, Value};

use super::Readings;
use super::body::{BodyRule, Field, HeldBody};
use super::check::Type;
use super::expression::Expression;
use crate::policy::BadSyntax;
use crate::policy::decide::RequestFacts;
use crate::policy::target::Target;

/// The functions of CEL, made once.
static LANGUAGE: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// What a condition sees besides the request's head.
#[derive(Debug, Clone)]
pub struct Circumstances<'a> {
    /// Seconds since 1970.
    pub now: i64,
    /// Bytes of the body, where they are known.
    pub size: Option<u64>,
    /// The body, where it was held.
    pub body: Option<HeldBody<'a>>,
    /// The level of risk in force for the nonce, as the policy names it.
    pub risk: &'a str,
    /// The nonce under which the request is made.
    pub nonce: NonceFacts<'a>,
}

/// What a condition sees of a nonce.
#[derive(Debug, Clone)]
pub struct NonceFacts<'a> {
    /// Whose.
    pub agent: &'a str,
    /// For what.
    pub task: &'a str,
    /// Which run of the agent, as the minter said.
    pub instance: Option<&'a str>,
    /// On whose behalf, as the minter said.
    pub on_behalf_of: Option<&'a str>,
    /// Labels, as the minter said.
    pub labels: Vec<(&'a str, &'a str)>,
    /// The data labels of all scopes that it holds.
    pub data: Vec<&'a str>,
    /// Since the minting.
    pub age_seconds: u64,
    /// Uses that were taken, where they are counted.
    pub uses: Option<u32>,
}

/// The first word of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Root {
    Request,
    Path,
    Body,
    Nonce,
    Risk,
    Now,
}

impl Root {
    const ALL: [(&'static str, Self); 6] = [
        ("request", Self::Request),
        ("path", Self::Path),
        ("body", Self::Body),
        ("nonce", Self::Nonce),
        ("risk", Self::Risk),
        ("now", Self::Now),
    ];

    pub(super) fn parse(name: &str) -> Result<Self, BadSyntax> {
        let found = Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, root)| *root);
        found.ok_or_else(|| {
            BadSyntax(format!("there is no `{name}`: inputs are request, path, body, nonce, risk and now"))
        })
    }

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, root)| *root == self).map_or("", |(name, _)| name)
    }
}

/// Some of the first words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Roots(u8);

impl Roots {
    pub(super) fn add(&mut self, root: Root) {
        self.0 |= 1 << root as u8;
    }

    fn has(self, root: Root) -> bool {
        self.0 & (1 << root as u8) != 0
    }

    /// What any of these reads.
    pub(super) fn of(expressions: &[Expression]) -> Self {
        Self(expressions.iter().fold(0, |all, expression| all | expression.roots().0))
    }
}

/// What the expressions of one rule can name.
#[derive(Debug, Clone, Copy)]
pub struct Variables<'a> {
    /// The placeholders of its path.
    pub captures: &'a [&'a str],
    /// Its body.
    pub body: Option<&'a BodyRule>,
}

impl Variables<'_> {
    /// The type of a field.
    pub(super) fn field(&self, root: Root, name: &str) -> Result<Type, BadSyntax> {
        let found = match root {
            Root::Request => of_request(name),
            Root::Nonce => of_nonce(name),
            Root::Path => self.captures.contains(&name).then_some(Type::Text),
            Root::Body => return self.of_body(name),
            Root::Risk | Root::Now => None,
        };
        found.ok_or_else(|| BadSyntax(format!("there is no `{}.{name}`{}", root.name(), self.hint(root))))
    }

    fn hint(&self, root: Root) -> String {
        match root {
            Root::Request => ": a request has method, path, host, query and size".to_owned(),
            Root::Nonce => {
                ": a nonce has agent, instance, task, labels, on_behalf_of, age_seconds, uses and data".to_owned()
            }
            Root::Path if self.captures.is_empty() => ": the rule's path has no placeholder".to_owned(),
            Root::Path => format!(": the rule's path has {}", self.captures.join(", ")),
            Root::Body | Root::Risk | Root::Now => String::new(),
        }
    }

    fn of_body(&self, name: &str) -> Result<Type, BadSyntax> {
        let Some(body) = self.body else {
            return Err(BadSyntax(
                "`body` is looked at, and the rule declares none: body = { type = \"json\", … }".to_owned(),
            ));
        };
        let Some(fields) = &body.fields else {
            return Err(BadSyntax(format!(
                "the type of `body.{name}` is not declared: fields = {{ {name} = \"string\" }}"
            )));
        };
        match fields.iter().find(|(known, _)| known == name) {
            Some((_, kind)) => Ok(kind.type_of()),
            None => Err(BadSyntax(format!("`fields` of the body has no `{name}`"))),
        }
    }
}

fn of_request(name: &str) -> Option<Type> {
    match name {
        "method" | "path" | "host" => Some(Type::Text),
        "query" => Some(Type::Table),
        "size" => Some(Type::Int),
        _ => None,
    }
}

fn of_nonce(name: &str) -> Option<Type> {
    match name {
        "agent" | "instance" | "task" | "on_behalf_of" => Some(Type::Text),
        "labels" => Some(Type::Table),
        "age_seconds" | "uses" => Some(Type::Int),
        "data" => Some(Type::List(Box::new(Type::Text))),
        _ => None,
    }
}

/// One request as its expressions see it.
pub(super) struct Scene<'a> {
    pub(super) facts: &'a RequestFacts<'a>,
    /// The placeholders with what they stand for.
    pub(super) path: &'a [(Box<str>, String)],
    pub(super) given: &'a Circumstances<'a>,
    pub(super) fields: Option<&'a [Field]>,
    pub(super) readings: Readings,
}

impl Scene<'_> {
    /// The values of these inputs. What is not known is not there, so that whatever reads it cannot be evaluated.
    pub(super) fn context(&self, roots: Roots) -> Context<'static, 'static> {
        let mut context = Context::with_env(LANGUAGE.clone());
        for (name, root) in Root::ALL.into_iter().filter(|(_, root)| roots.has(*root)) {
            let value = match root {
                Root::Request => self.request(),
                Root::Path if self.readings == Readings::Several => map(std::iter::empty()),
                Root::Path => map(self.path.iter().map(|(name, value)| (&**name, Some(text(value))))),
                Root::Body => {
                    map(self.fields.unwrap_or_default().iter().map(|field| (&*field.name, Some(field.value.to_cel()))))
                }
                Root::Nonce => self.nonce(),
                Root::Risk => text(self.given.risk),
                Root::Now => Value::Int(self.given.now),
            };
            context.add_variable_from_value(name, value);
        }
        context
    }

    fn request(&self) -> Value {
        let method = if self.facts.websocket { "WEBSOCKET" } else { self.facts.method };
        let path = (self.readings == Readings::One).then(|| Value::String(Arc::new(decoded(self.facts.target))));
        map([
            ("method", Some(text(method))),
            ("path", path),
            ("host", Some(text(&self.facts.host.to_string()))),
            ("query", query(self.facts.target)),
            ("size", self.given.size.and_then(|size| i64::try_from(size).ok()).map(Value::Int)),
        ])
    }

    fn nonce(&self) -> Value {
        let nonce = &self.given.nonce;
        let labels = map(nonce.labels.iter().map(|(name, value)| (*name, Some(text(value)))));
        let data: Vec<Value> = nonce.data.iter().map(|label| text(label)).collect();
        map([
            ("agent", Some(text(nonce.agent))),
            ("task", Some(text(nonce.task))),
            ("instance", nonce.instance.map(text)),
            ("on_behalf_of", nonce.on_behalf_of.map(text)),
            ("labels", Some(labels)),
            ("data", Some(Value::List(Arc::new(data)))),
            ("age_seconds", i64::try_from(nonce.age_seconds).ok().map(Value::Int)),
            ("uses", nonce.uses.map(|uses| Value::Int(uses.into()))),
        ])
    }
}

pub(super) fn text(text: &str) -> Value {
    Value::String(Arc::new(text.to_owned()))
}

fn map<'n>(entries: impl IntoIterator<Item = (&'n str, Option<Value>)>) -> Value {
    let known = entries.into_iter().filter_map(|(name, value)| Some((Key::String(Arc::new(name.to_owned())), value?)));
    Value::Map(Map { map: Arc::new(known.collect::<HashMap<_, _>>()) })
}

/// The path with its escapes decoded: the one in which rules match.
fn decoded(target: &Target) -> String {
    let mut path = String::with_capacity(target.path().len());
    for segment in target.segments() {
        path.push('/');
        path.push_str(segment);
    }
    if target.has_trailing_slash() || path.is_empty() {
        path.push('/');
    }
    path
}

/// The parameters; `None` where one is there twice, cannot be decoded, or could be split in another way.
fn query(target: &Target) -> Option<Value> {
    if target.query().is_some_and(|query| query.contains(';')) {
        return None;
    }
    let mut parameters = HashMap::new();
    for parameter in target.query_parameters() {
        let name = Key::String(Arc::new(parameter.name()?.into_owned()));
        let value = Value::String(Arc::new(parameter.value()?.into_owned()));
        if parameters.insert(name, value).is_some() {
            return None;
        }
    }
    Some(Value::Map(Map { map: Arc::new(parameters) }))
}

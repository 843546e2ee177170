//! A denial on its way to [`super::refuse`], with what was known when it fell.

use std::sync::Arc;

use crate::audit::DecisionFacts;
use crate::model::Denial;
use crate::policy::Service;

/// What ends a journey early.
#[derive(Debug)]
pub struct Refused {
    /// Why.
    pub denial: Denial,
    /// What was known, for the audit.
    pub facts: Box<DecisionFacts>,
    /// Whose dialect the answer is in, and whose slots a challenge names.
    pub service: Option<Arc<Service>>,
}

impl Refused {
    /// A denial with what was known.
    #[must_use]
    pub fn new(denial: Denial, facts: DecisionFacts) -> Self {
        Self { denial, facts: Box::new(facts), service: None }
    }

    /// At a destination of these services; the first one gives the dialect.
    #[must_use]
    pub fn at(mut self, services: &[Arc<Service>]) -> Self {
        self.service = services.first().cloned();
        self
    }

    /// Of this service.
    #[must_use]
    pub fn of(mut self, service: &Arc<Service>) -> Self {
        self.service = Some(service.clone());
        self
    }
}

impl From<Denial> for Refused {
    fn from(denial: Denial) -> Self {
        Self::new(denial, DecisionFacts::default())
    }
}

/// What was decided, kept for refusals that come after the decision.
pub struct Story {
    pub(super) facts: Arc<DecisionFacts>,
    pub(super) service: Arc<Service>,
}

impl Story {
    /// A refusal after the decision.
    #[must_use]
    pub fn refused(&self, denial: Denial) -> Refused {
        Refused::new(denial, DecisionFacts::clone(&self.facts)).of(&self.service)
    }
}

//! Electors that can be copied: an elector is what has happened to it, so a copy is one to which
//! the same has happened.

use std::ops::Deref;
use std::rc::Rc;

use super::super::*;

/// Something that happens to an elector.
pub(super) type Step = Rc<dyn Fn(&mut Elector, Instant, &mut Vec<LinkOp>)>;

pub(super) struct Copied {
    elector: Elector,
    past: Vec<(Instant, Step)>,
}

impl Copied {
    pub(super) fn new(config: ElectorConfig) -> Self {
        Self { elector: Elector::new(config), past: Vec::new() }
    }

    /// What it wants done, and what it has decided.
    pub(super) fn step(&mut self, now: Instant, step: Step) -> (Vec<LinkOp>, Option<Decision>) {
        let mut out = Vec::new();
        step(&mut self.elector, now, &mut out);
        self.past.push((now, step));
        (out, self.elector.decided())
    }
}

impl Clone for Copied {
    fn clone(&self) -> Self {
        let mut copy = Self::new(self.elector.config.clone());
        for (now, step) in &self.past {
            copy.step(*now, Rc::clone(step));
        }
        copy
    }
}

impl Deref for Copied {
    type Target = Elector;

    fn deref(&self) -> &Elector {
        &self.elector
    }
}

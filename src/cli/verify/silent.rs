//! Machines that let us wait for nothing, so that not every object waits for them anew.
//!
//! Invariant: a machine that is remembered is asked by one reader every [`ASK_AGAIN`]; as soon as it answers, by all. Only
//! silence is remembered: a machine that refuses does so at once, and costs no time.

use crate::client::Error;
use crate::messages::error::ErrorCode;
use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;
use tokio::time::Instant;

/// How long a silent machine is left alone.
pub(super) const ASK_AGAIN: Duration = Duration::from_secs(10);
/// What took so long before it failed was silence, unless the client waits for less anyway.
const LONG: Duration = Duration::from_secs(1);

/// The machines that are silent: until when they are left alone, and why.
pub(super) struct Silent<M> {
    machines: RefCell<HashMap<M, (Instant, String)>>,
    long: Duration,
}

impl<M: Eq + Hash + Clone> Silent<M> {
    /// None yet. `timeout`: how long the client waits for an answer.
    pub(super) fn new(timeout: Duration) -> Self {
        Self { machines: RefCell::default(), long: LONG.min(timeout / 2) }
    }

    /// Why the machine is not to be asked now. `None`: it is, and others are to wait for what comes of it.
    pub(super) fn why_not(&self, machine: &M, now: Instant) -> Option<String> {
        let mut machines = self.machines.borrow_mut();
        let (until, why) = machines.get_mut(machine)?;
        if now < *until {
            let seconds = ASK_AGAIN.as_secs();
            return Some(format!("{why}; it is asked again every {seconds} s"));
        }
        *until = now + ASK_AGAIN;
        None
    }

    /// What came of asking it from `begun` on.
    pub(super) fn learn<T>(
        &self,
        machine: &M,
        answer: &Result<T, Error>,
        (begun, now): (Instant, Instant),
    ) {
        match answer {
            Err(error)
                if error.code == ErrorCode::Unavailable
                    && now.duration_since(begun) >= self.long =>
            {
                let entry = (now + ASK_AGAIN, error.message.clone());
                self.machines.borrow_mut().insert(machine.clone(), entry);
            }
            Ok(_) | Err(_) => drop(self.machines.borrow_mut().remove(machine)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    fn silence() -> Result<(), Error> {
        Err(Error::new(ErrorCode::Unavailable, "no answer in time"))
    }

    #[test]
    fn a_silent_machine_costs_one_reader_its_time_and_never_all() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let silent = Silent::new(TIMEOUT);
        assert_eq!(silent.why_not(&2, at(0)), None, "nothing is known against it");
        silent.learn(&2, &silence(), (at(0), at(10)));
        let why = silent.why_not(&2, at(19)).expect("left alone");
        assert!(why.contains("no answer in time"), "{why}");
        assert_eq!(silent.why_not(&1, at(19)), None, "another machine");
        assert_eq!(silent.why_not(&2, at(20)), None, "one asks it again");
        assert!(silent.why_not(&2, at(21)).is_some(), "the others wait for what comes of it");
        silent.learn(&2, &Ok::<(), Error>(()), (at(20), at(22)));
        assert_eq!(silent.why_not(&2, at(22)), None, "it is there again");
    }

    #[test]
    fn a_refusal_is_no_silence() {
        let start = Instant::now();
        let silent = Silent::new(TIMEOUT);
        let soon = (start, start + Duration::from_millis(900));
        silent.learn(&2, &silence(), soon);
        assert_eq!(silent.why_not(&2, start), None, "a port where nobody listens");
        let gone = Err::<(), _>(Error::new(ErrorCode::NotFound, "no such object"));
        silent.learn(&2, &gone, (start, start + TIMEOUT));
        assert_eq!(silent.why_not(&2, start), None, "slow, and still an answer");
    }
}

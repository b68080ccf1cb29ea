//! How many connections there may be, counted over all cores.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

/// Bounds on the number of connections; 0 is none, except for descriptors.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections from one address (`maxClientCnxns`).
    pub per_address: usize,
    /// Connections in all (`maxCnxns`).
    pub total: usize,
    /// Connections in all that there are descriptors for.
    pub descriptors: usize,
}

/// Counts connections against the limits. Used when one comes or goes, so a lock does.
#[derive(Debug)]
pub(crate) struct Admission {
    limits: Limits,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    per_address: HashMap<IpAddr, usize>,
    total: usize,
    rejected: u64,
}

/// Why a connection is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// As many as `maxCnxns` are there.
    #[error("{0} are there, which is maxCnxns")]
    Total(usize),
    /// As many as `maxClientCnxns` are there from this address.
    #[error("{0} are there from this address, which is maxClientCnxns")]
    PerAddress(usize),
    /// The other descriptors are for the server itself.
    #[error(
        "{0} are there, all that the limit of open files leaves to clients: raise it (ulimit -n)"
    )]
    Descriptors(usize),
}

impl Admission {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, counts: Mutex::default() }
    }

    /// Counts a connection in, or says why not.
    pub(crate) fn enter(&self, address: IpAddr) -> Result<(), Refusal> {
        let Limits { per_address, total, descriptors } = self.limits;
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if total > 0 && counts.total >= total {
            counts.rejected += 1;
            return Err(Refusal::Total(total));
        }
        if counts.total >= descriptors {
            counts.rejected += 1;
            return Err(Refusal::Descriptors(descriptors));
        }
        let of_address = counts.per_address.entry(address).or_default();
        if per_address > 0 && *of_address >= per_address {
            counts.rejected += 1;
            return Err(Refusal::PerAddress(per_address));
        }
        *of_address += 1;
        counts.total += 1;
        Ok(())
    }

    /// Counts a connection out.
    pub(crate) fn leave(&self, address: IpAddr) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.total -= 1;
        let left = counts.per_address.get_mut(&address).map(|count| {
            *count -= 1;
            *count
        });
        if left == Some(0) {
            counts.per_address.remove(&address);
        }
    }

    /// How many connections were refused so far.
    pub(crate) fn rejected(&self) -> u64 {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).rejected
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_address_and_in_all() {
        let limits = Limits { per_address: 1, total: 2, descriptors: 3 };
        let admission = Admission::new(limits);
        let address = |last| IpAddr::from([127, 0, 0, last]);
        assert_eq!(admission.enter(address(1)), Ok(()));
        assert_eq!(admission.enter(address(1)), Err(Refusal::PerAddress(1)));
        assert_eq!(admission.enter(address(2)), Ok(()));
        assert_eq!(admission.enter(address(3)), Err(Refusal::Total(2)));
        admission.leave(address(1));
        assert_eq!(admission.enter(address(1)), Ok(()));
        assert_eq!(admission.rejected(), 2);
    }

    #[test]
    fn descriptors_bound_what_nothing_else_bounds() {
        let limits = Limits { per_address: 0, total: 0, descriptors: 2 };
        let admission = Admission::new(limits);
        let address = IpAddr::from([127, 0, 0, 1]);
        assert_eq!([admission.enter(address), admission.enter(address)], [Ok(()), Ok(())]);
        assert_eq!(admission.enter(address), Err(Refusal::Descriptors(2)));
        admission.leave(address);
        assert_eq!(admission.enter(address), Ok(()));
        assert_eq!(admission.rejected(), 1);
    }
}

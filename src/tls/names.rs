//! The name of a machine in its certificate: a URI among its subject alternative names.
//!
//! ```text
//! folio://GROUP/SYNCGROUP/MACHINE        folio://books/a/1
//! ```
//! The same words as in the name that a storage gives in its handshake (`books/a/1`). Group and syncgroup are names of the
//! configuration (`a-z0-9._-`), so nothing needs escaping. A certificate may carry several (`folio dev` has one for all
//! its machines); other names in it are for the hosts.
//!
//! Pure: certificates arrive here as the texts in them.

use crate::format::ids::MachineId;
use std::fmt;

/// What the names begin with.
pub const SCHEME: &str = "folio://";

/// One machine of one syncgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineName {
    /// Its group.
    pub group: String,
    /// Its syncgroup.
    pub syncgroup: String,
    /// Its machine id.
    pub machine: MachineId,
}

impl MachineName {
    /// From `GROUP/SYNCGROUP/MACHINE`. A machine id has one spelling: `01` and `+1` are no machines.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let (Some(group), Some(syncgroup), Some(machine), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return None;
        };
        let id: MachineId = machine.parse().ok()?;
        let exact = id.to_string() == machine && !group.is_empty() && !syncgroup.is_empty();
        exact.then(|| Self {
            group: group.to_owned(),
            syncgroup: syncgroup.to_owned(),
            machine: id,
        })
    }

    /// From a URI of a certificate; `None`: it names no machine.
    #[must_use]
    pub fn of_uri(uri: &str) -> Option<Self> {
        uri.strip_prefix(SCHEME).and_then(Self::parse)
    }

    /// As it stands in a certificate.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("{SCHEME}{self}")
    }
}

impl fmt::Display for MachineName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.group, self.syncgroup, self.machine)
    }
}

/// What the other end of a connection has shown of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Certified {
    /// Nothing is asked of it: plaintext, or a daemon without a CA.
    #[default]
    NotAsked,
    /// It might have shown a certificate and did not.
    Nothing,
    /// A certificate that our CA signed, with these machines in it.
    Machines(Vec<MachineName>),
}

/// Why somebody is not taken for the machine that it says it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotCertified {
    /// No certificate.
    #[error("the role peer needs a certificate that names the machine")]
    Missing,
    /// It calls itself something that is no machine.
    #[error("{0:?} is no GROUP/SYNCGROUP/MACHINE, and a peer must say which machine it is")]
    NoName(String),
    /// A certificate of somebody else.
    #[error("its certificate is for {}, and it says that it is machine {claimed}", listed(.shown))]
    Other {
        /// What is in the certificate.
        shown: Vec<MachineName>,
        /// What was said.
        claimed: String,
    },
}

fn listed(names: &[MachineName]) -> String {
    match names {
        [] => "no machine at all".to_owned(),
        names => names.iter().map(MachineName::uri).collect::<Vec<_>>().join(" and "),
    }
}

impl Certified {
    /// Whether the other end may call itself the machine `claimed` (`GROUP/SYNCGROUP/MACHINE`).
    ///
    /// # Errors
    /// [`NotCertified`].
    pub fn check(&self, claimed: &str) -> Result<(), NotCertified> {
        let shown = match self {
            Self::NotAsked => return Ok(()),
            Self::Nothing => return Err(NotCertified::Missing),
            Self::Machines(shown) => shown,
        };
        let Some(name) = MachineName::parse(claimed) else {
            return Err(NotCertified::NoName(claimed.to_owned()));
        };
        if shown.contains(&name) {
            return Ok(());
        }
        Err(NotCertified::Other { shown: shown.clone(), claimed: claimed.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn shown(uris: &[&str]) -> Certified {
        Certified::Machines(uris.iter().filter_map(|uri| MachineName::of_uri(uri)).collect())
    }

    #[rstest]
    #[case("folio://books/a/1", Some("books/a/1"))]
    #[case("folio://a.b_c-9/x/65535", Some("a.b_c-9/x/65535"))]
    #[case("folio://books/a/65536", None)]
    #[case("folio://books/a/01", None)]
    #[case("folio://books/a/+1", None)]
    #[case("folio://books/a/", None)]
    #[case("folio://books/a", None)]
    #[case("folio://books/a/1/2", None)]
    #[case("folio:///a/1", None)]
    #[case("folio://books//1", None)]
    #[case("FOLIO://books/a/1", None)]
    #[case("http://books/a/1", None)]
    #[case("books/a/1", None)]
    #[case("", None)]
    fn only_the_one_spelling_names_a_machine(#[case] uri: &str, #[case] name: Option<&str>) {
        let found = MachineName::of_uri(uri);
        assert_eq!(found.as_ref().map(ToString::to_string).as_deref(), name);
        if let Some(found) = found {
            assert_eq!(found.uri(), uri);
        }
    }

    #[test]
    fn nobody_passes_for_a_machine_that_its_certificate_does_not_name() {
        let one = shown(&["folio://books/a/1"]);
        assert_eq!(one.check("books/a/1"), Ok(()));
        for other in ["books/a/2", "books/b/1", "texts/a/1"] {
            let refused = one.check(other).expect_err("another machine").to_string();
            assert!(refused.contains("folio://books/a/1") && refused.contains(other), "{refused}");
        }
        for nobody in ["", "1", "books/a", "folio client", "books/a/1 ", "books/a/01"] {
            assert!(matches!(one.check(nobody), Err(NotCertified::NoName(_))), "{nobody:?}");
        }
        let none = shown(&["https://example.org/"]).check("books/a/1").expect_err("no machine");
        assert!(none.to_string().contains("no machine at all"), "{none}");
    }

    #[test]
    fn a_certificate_for_several_machines_is_each_of_them() {
        let all = shown(&["folio://dev/a/1", "folio://dev/a/2"]);
        assert_eq!((all.check("dev/a/1"), all.check("dev/a/2")), (Ok(()), Ok(())));
        assert!(all.check("dev/a/3").is_err());
    }

    #[test]
    fn a_missing_certificate_counts_only_where_it_is_asked_for() {
        assert_eq!(Certified::Nothing.check("books/a/1"), Err(NotCertified::Missing));
        assert_eq!(Certified::NotAsked.check("anybody"), Ok(()));
    }
}

//! Proving the admin key on a console: HMAC-SHA256 of the challenge in the banner, in hexadecimal.
//!
//! Invariants: the challenge is new for every connection; it is signed as the text that the banner shows, so that
//! `openssl` can do it; comparison takes constant time; after [`ATTEMPTS_MAX`] wrong proofs the connection ends.

use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::actors::session::KeyRing;
use crate::messages::opcode::Role;

/// Wrong proofs on one connection.
pub const ATTEMPTS_MAX: u32 = 3;

/// The proof for a challenge, lower case.
#[must_use]
pub fn proof(key: &[u8], challenge: &str) -> Option<String> {
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key).ok()?;
    mac.update(challenge.as_bytes());
    Some(HEXLOWER.encode(&mac.finalize().into_bytes()))
}

/// Where one connection stands.
#[derive(Debug)]
pub struct Login {
    challenge: Option<String>,
    proved: bool,
    wrong: u32,
}

impl Login {
    /// A fresh connection; `chance`: 16 random bytes. Without any key everybody is in (the console then listens on
    /// loopback only).
    #[must_use]
    pub fn new(keys: &KeyRing, chance: [u8; 16]) -> Self {
        let challenge = (!keys.is_open()).then(|| HEXLOWER.encode(&chance));
        Self { proved: challenge.is_none(), challenge, wrong: 0 }
    }

    /// For the banner.
    #[must_use]
    pub fn challenge(&self) -> Option<&str> {
        self.challenge.as_deref()
    }

    /// Whether commands may be given.
    #[must_use]
    pub const fn is_in(&self) -> bool {
        self.proved
    }

    /// Whether it has tried too often.
    #[must_use]
    pub const fn is_out(&self) -> bool {
        self.wrong >= ATTEMPTS_MAX
    }

    /// Checks a proof.
    ///
    /// # Errors
    /// What to answer.
    pub fn try_proof(&mut self, keys: &KeyRing, given: &str) -> Result<(), String> {
        let Some(challenge) = &self.challenge else {
            return Err("no key is configured here: nothing to prove".to_owned());
        };
        let admin = keys.of(Role::Admin);
        if admin.is_empty() {
            self.wrong += 1;
            return Err("the key file of this daemon has no line `admin HEX`".to_owned());
        }
        let given = given.to_ascii_lowercase();
        let right = admin
            .iter()
            .filter_map(|key| proof(key.bytes(), challenge))
            .fold(subtle::Choice::from(0), |found, expected| {
                found | expected.as_bytes().ct_eq(given.as_bytes())
            });
        if bool::from(right) {
            self.proved = true;
            return Ok(());
        }
        self.wrong += 1;
        Err("wrong proof; `help auth` shows how to make it".to_owned())
    }

    /// `help auth`: the line that makes the proof.
    #[must_use]
    pub fn help(&self) -> String {
        match &self.challenge {
            None => "no key is configured here: `auth` is not needed\n".to_owned(),
            Some(challenge) => format!(
                "printf %s {challenge} | openssl dgst -sha256 -mac HMAC -macopt \
                 hexkey:$(awk '$1==\"admin\"{{print $2;exit}}' KEYFILE) | awk '{{print \"auth\",$NF}}'\n"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::settings::Keys;

    fn keys(text: &str) -> KeyRing {
        KeyRing::new(Some(Keys::parse(Path::new("test"), text).expect("keys")))
    }

    #[test]
    fn the_proof_is_what_openssl_makes() {
        // printf %s 00010203 | openssl dgst -sha256 -mac HMAC -macopt hexkey:000102030405060708090a0b0c0d0e0f
        let key: Vec<u8> = (0..16).collect();
        assert_eq!(
            proof(&key, "00010203").as_deref(),
            Some("1f83420ac9462f22ec32bc8db980b0ce68de2cfb77ebe945b264e1b3db838abc")
        );
    }

    #[test]
    fn only_the_admin_key_opens_and_three_wrong_tries_end_it() {
        let keys = keys(
            "client 000102030405060708090a0b0c0d0e0f\nadmin 101112131415161718191a1b1c1d1e1f\n",
        );
        let mut login = Login::new(&keys, [7; 16]);
        assert!(!login.is_in());
        let challenge = login.challenge().expect("a challenge").to_owned();
        let client: Vec<u8> = (0..16).collect();
        let admin: Vec<u8> = (16..32).collect();
        assert!(login.try_proof(&keys, &proof(&client, &challenge).expect("a proof")).is_err());
        assert!(login.try_proof(&keys, "").is_err());
        assert!(!login.is_in() && !login.is_out());
        let right = proof(&admin, &challenge).expect("a proof").to_uppercase();
        assert_eq!(login.try_proof(&keys, &right), Ok(()));
        assert!(login.is_in());
        let mut other = Login::new(&keys, [8; 16]);
        for _ in 0..ATTEMPTS_MAX {
            assert!(other.try_proof(&keys, &right).is_err(), "a proof is for one challenge");
        }
        assert!(other.is_out());
    }

    #[test]
    fn keys_without_an_admin_line_open_to_nobody() {
        let keys = keys("client 000102030405060708090a0b0c0d0e0f\n");
        let mut login = Login::new(&keys, [7; 16]);
        assert!(!login.is_in());
        assert!(login.try_proof(&keys, "00").is_err());
    }
}

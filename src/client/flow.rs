//! The window of a streamed body, at both ends: a sender may have only so many bytes on their way.

use std::sync::atomic::{AtomicI64, Ordering};
use tokio::sync::Notify;

/// What a sender may still send, bytes; the receiver's Window frames raise it.
#[derive(Debug, Default)]
pub(super) struct Credit {
    bytes: AtomicI64,
    more: Notify,
}

impl Credit {
    /// The other end takes `bytes` more.
    pub(super) fn grant(&self, bytes: u32) {
        self.bytes.fetch_add(bytes.into(), Ordering::AcqRel);
        self.more.notify_one();
    }

    /// Waits until at least one byte may be sent; how many, at most `wanted`.
    ///
    /// One sender only. Dropping the future takes nothing.
    pub(super) async fn available(&self, wanted: usize) -> usize {
        loop {
            let more = self.more.notified();
            let bytes = self.bytes.load(Ordering::Acquire);
            if bytes > 0 {
                return usize::try_from(bytes).map_or(wanted, |bytes| bytes.min(wanted));
            }
            more.await;
        }
    }

    /// Takes what was sent.
    pub(super) fn take(&self, bytes: usize) {
        self.bytes.fetch_sub(i64::try_from(bytes).unwrap_or(i64::MAX), Ordering::AcqRel);
    }
}

/// What a receiver has allowed and not yet got, bytes. Below 0 the sender broke the rule.
#[derive(Debug)]
pub(super) struct Allowance(AtomicI64);

impl Allowance {
    /// So much is allowed at first.
    pub(super) const fn new(bytes: u32) -> Self {
        Self(AtomicI64::new(bytes as i64))
    }

    /// `bytes` came; whether they were allowed.
    pub(super) fn receive(&self, bytes: usize) -> bool {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.0.fetch_sub(bytes, Ordering::AcqRel) >= bytes
    }

    /// Allows so many more.
    pub(super) fn allow(&self, bytes: u32) {
        self.0.fetch_add(bytes.into(), Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_over_its_window_is_noticed() {
        let allowance = Allowance::new(10);
        assert!(allowance.receive(10));
        assert!(!allowance.receive(1));
        allowance.allow(5);
        assert!(allowance.receive(4));
    }

    #[tokio::test]
    async fn nothing_is_sent_without_credit() {
        let credit = Credit::default();
        let waiting = tokio::time::timeout(std::time::Duration::ZERO, credit.available(5)).await;
        assert!(waiting.is_err());
        credit.grant(3);
        assert_eq!(credit.available(5).await, 3);
        credit.take(3);
        credit.grant(100);
        assert_eq!(credit.available(5).await, 5);
    }
}

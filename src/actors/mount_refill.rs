//! What a mount's room does while the mount is refilled (the third part of [`mount_room`](super::mount_room)).
//!
//! Invariants: the state is durable before anybody sees the mount in it; a mount that is refilled answers no client and
//! publishes no tail of its log.

use super::ambient;
use super::mount_room::MountRoom;
use super::session::Problem;
use crate::format::recovery_state::{Cause, RecoveryState};
use crate::store::error::StoreResult;

impl MountRoom {
    /// Makes the state durable.
    ///
    /// # Errors
    /// The mount is out of service.
    pub fn save_recovery(&mut self, state: &RecoveryState) -> Result<(), Problem> {
        let Some(engine) = &mut self.engine else { return Err(self.shared.out_of_service()) };
        let saved = engine.save_recovery(state);
        self.after_saving(saved)
    }

    /// Takes the mount out of service, to be refilled from its mirrors. What it holds stays.
    ///
    /// # Errors
    /// The mount is out of service.
    pub fn begin_refill(&mut self, cause: Cause) -> Result<(), Problem> {
        let open = self.shared.open()?;
        self.commit();
        let state = RecoveryState::begin(cause, ambient::wall_ms());
        self.save_recovery(&state)?;
        tracing::warn!(
            mount = self.shared.index,
            cause = cause.name(),
            "the mount is refilled from its mirrors before it serves"
        );
        self.shared.publish_refilling(open, state);
        // Nobody of us counts copies while the log is not sent.
        self.acks.give_up("the mount is being refilled from its mirrors");
        self.publish_tail();
        Ok(())
    }

    /// The mount is whole.
    ///
    /// # Errors
    /// The mount is out of service.
    pub fn end_refill(&mut self) -> Result<(), Problem> {
        let Some(engine) = &mut self.engine else { return Err(self.shared.out_of_service()) };
        let ended = engine.end_recovery();
        self.after_saving(ended)?;
        self.shared.publish_refilled();
        self.refresh();
        self.publish_tail();
        self.look_after_mirrors();
        Ok(())
    }

    fn after_saving(&mut self, saved: StoreResult<()>) -> Result<(), Problem> {
        saved.map_err(|error| {
            tracing::error!(mount = self.shared.index, %error, "the state of the recovery");
            self.leave_fenced();
            self.shared.out_of_service()
        })
    }
}

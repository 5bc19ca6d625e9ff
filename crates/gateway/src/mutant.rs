//! Known-bad behaviour that the durability harness must catch, or its zeros mean nothing.
//! Only a debug build with the feature `mutants` can be made to do any of it.

#[cfg(all(feature = "mutants", not(debug_assertions)))]
compile_error!("the feature `mutants` makes a gateway that loses scans: it must never be in a release build");

/// One way of being wrong, by its name in the environment variable `LUMBUNG_MUTANT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// `sync_off`: commits without fsync.
    SyncOff,
    /// `early_ack`: answers before the commit.
    EarlyAck,
    /// `flag_early`: marks scans as sent before the cloud's verdict.
    FlagEarly,
    /// `drop_on_401`: deletes what an unauthorised batch held.
    #[cfg(feature = "mutants")]
    DropOn401,
}

impl Mutant {
    /// Whether this process was told to be wrong in this way.
    #[cfg(feature = "mutants")]
    pub(crate) fn is_active(self) -> bool {
        let name = match self {
            Self::SyncOff => "sync_off",
            Self::EarlyAck => "early_ack",
            Self::FlagEarly => "flag_early",
            Self::DropOn401 => "drop_on_401",
        };
        std::env::var("LUMBUNG_MUTANT").is_ok_and(|chosen| chosen == name)
    }

    /// Never: this build has no mutants.
    #[cfg(not(feature = "mutants"))]
    pub(crate) const fn is_active(self) -> bool {
        false
    }
}

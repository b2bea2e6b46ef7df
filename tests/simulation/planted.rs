//! Bugs of a shell, planted to see that the harness finds them.

/// Which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// The memory on disk is one input behind.
    MemoryWrittenLate,
    /// SIGCONT is reported and not sent.
    ContinueForgotten,
    /// Two workers of one share mount.
    MountStartedTwice,
    /// A late answer is taken for the one that is awaited.
    LateAnswersBelieved,
    /// The fence is reported to be lifted and is not.
    FenceNotLifted,
    /// The share is reported to be off the path and is not.
    DetachForgotten,
    /// One share that is well again lets go the consumers of all.
    OneShareSpeaksForAll,
    /// A command that is refused leaves something behind.
    RefusedAndApplied,
    /// Two shares mount at once.
    SecondMountOnTheHost,
    /// What nasmount stopped is kept where a reboot forgets it.
    StoppedForgottenAtReboot,
    /// The clocks of a hold run on while the host sleeps.
    SleepNotTold,
    /// Nobody hears that the host goes down.
    ShutdownNotTold,
}

impl Planted {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::MemoryWrittenLate,
        Self::ContinueForgotten,
        Self::MountStartedTwice,
        Self::LateAnswersBelieved,
        Self::FenceNotLifted,
        Self::DetachForgotten,
        Self::OneShareSpeaksForAll,
        Self::RefusedAndApplied,
        Self::SecondMountOnTheHost,
        Self::StoppedForgottenAtReboot,
        Self::SleepNotTold,
        Self::ShutdownNotTold,
    ];
}

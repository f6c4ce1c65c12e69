//! Exit codes: what a script or CI may rely on.

/// How a run of the tool ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// The user can mend it.
    User = 1,
    /// Changes are pending; only with `--exit-code`.
    Pending = 2,
    /// The command line is wrong.
    Usage = 64,
    /// A bug of ours.
    Bug = 70,
    /// Waiting or locked: run again.
    Retry = 75,
    /// Interrupted; running again goes on.
    Interrupted = 130,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        std::process::ExitCode::from(exit as u8)
    }
}

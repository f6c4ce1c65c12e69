//! What can go wrong between us and a machine.

use std::net::SocketAddr;

/// A call to a machine that brought no answer, or a bad one.
///
/// What the machine says of itself is a stranger's text: it is a cause of its own ([`Refusal`]), never in the message.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody listens there, or the way is cut.
    #[error("nobody answers at {address}")]
    Unreachable {
        /// Whom we asked.
        address: SocketAddr,
        /// What the network says.
        source: std::io::Error,
    },
    /// Somebody listens who is no Talos machine that we could talk to.
    #[error("{address} does not speak TLS as the Talos API does")]
    Tls {
        /// Whom we asked.
        address: SocketAddr,
        /// What TLS says.
        source: std::io::Error,
    },
    /// The machine is configured, and its certificate is not of our authority.
    #[error(
        "{address} is a machine of another cluster: its certificate is not signed with this cluster's bundle"
    )]
    Foreign {
        /// Whom we asked.
        address: SocketAddr,
    },
    /// The certificate is not the one that was seen before.
    #[error("{address} shows another certificate than a moment ago")]
    Changed {
        /// Whom we asked.
        address: SocketAddr,
    },
    /// It said no.
    #[error("{method} was refused by {address} ({})", code_name(.code))]
    Refused {
        /// What was asked.
        method: &'static str,
        /// Whom.
        address: SocketAddr,
        /// gRPC's code.
        code: tonic::Code,
        /// Its own words.
        source: Refusal,
    },
    /// The connection broke before the answer was whole. The machine may have done what it was asked.
    #[error("the connection to {address} broke during {method}")]
    Broken {
        /// What was asked.
        method: &'static str,
        /// Whom.
        address: SocketAddr,
        /// What is known of it.
        source: Refusal,
    },
    /// No answer in time. The machine may have done what it was asked.
    #[error("{address} gave no answer to {method} in {seconds} s")]
    TimedOut {
        /// What was asked.
        method: &'static str,
        /// Whom.
        address: SocketAddr,
        /// How long we waited.
        seconds: u64,
    },
    /// An answer that cannot be read.
    #[error("the answer of {address} to {method} makes no sense: {what}")]
    Nonsense {
        /// What was asked.
        method: &'static str,
        /// Whom.
        address: SocketAddr,
        /// What is wrong with it.
        what: &'static str,
    },
    /// We were asked to stop.
    #[error("stopped while {method} at {address} was not answered yet")]
    Stopped {
        /// What was asked.
        method: &'static str,
        /// Whom.
        address: SocketAddr,
    },
    /// Our own credentials cannot be used.
    #[error("the credentials for {address} cannot be used")]
    Credentials {
        /// Whom we wanted to ask.
        address: SocketAddr,
        /// Why.
        source: rustls::Error,
    },
    /// What was to be sent or to be kept could not be read or written.
    #[error("{method} at {address} was given up")]
    Local {
        /// What was asked.
        method: &'static str,
        /// Whom.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

/// A machine's own words.
#[derive(Debug, thiserror::Error)]
#[error("it says: {0}")]
pub struct Refusal(pub String);

impl CallError {
    /// gRPC's code, when the machine gave one.
    pub fn code(&self) -> Option<tonic::Code> {
        match self {
            CallError::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether the same call may well be answered later: nothing about it is wrong.
    pub fn passing(&self) -> bool {
        match self {
            CallError::Unreachable { .. }
            | CallError::Changed { .. }
            | CallError::Broken { .. }
            | CallError::TimedOut { .. } => true,
            CallError::Refused { code, .. } => matches!(
                code,
                tonic::Code::Unavailable
                    | tonic::Code::DeadlineExceeded
                    | tonic::Code::FailedPrecondition
                    | tonic::Code::Aborted
                    | tonic::Code::ResourceExhausted
            ),
            _ => false,
        }
    }
}

/// gRPC's name of a code, as its documentation has it.
fn code_name(code: &tonic::Code) -> &'static str {
    match code {
        tonic::Code::Ok => "OK",
        tonic::Code::Cancelled => "Cancelled",
        tonic::Code::Unknown => "Unknown",
        tonic::Code::InvalidArgument => "InvalidArgument",
        tonic::Code::DeadlineExceeded => "DeadlineExceeded",
        tonic::Code::NotFound => "NotFound",
        tonic::Code::AlreadyExists => "AlreadyExists",
        tonic::Code::PermissionDenied => "PermissionDenied",
        tonic::Code::ResourceExhausted => "ResourceExhausted",
        tonic::Code::FailedPrecondition => "FailedPrecondition",
        tonic::Code::Aborted => "Aborted",
        tonic::Code::OutOfRange => "OutOfRange",
        tonic::Code::Unimplemented => "Unimplemented",
        tonic::Code::Internal => "Internal",
        tonic::Code::Unavailable => "Unavailable",
        tonic::Code::DataLoss => "DataLoss",
        tonic::Code::Unauthenticated => "Unauthenticated",
    }
}

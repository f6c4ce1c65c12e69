//! What a machine says of itself, by its own API.

use crate::Target;
use bramble_rpc::node::{StatusReply, StatusRequest};
use bramble_rpc::{Credentials, connect};
use std::error::Error;
use std::time::Duration;

/// Its answer, or in a few words why there is none.
pub type Answer = Result<StatusReply, String>;

/// Asks one machine.
pub async fn ask(target: &Target, credentials: &Credentials, deadline: Duration) -> Answer {
    let place = target.place.as_ref().map_err(Clone::clone)?;
    let asked = async {
        let mut client = connect(&target.name, place, credentials).await.map_err(|e| cause(&e))?;
        let reply = client.status(StatusRequest {}).await;
        Ok(reply.map_err(|e| e.message().to_string())?.into_inner())
    };
    let answer = tokio::time::timeout(deadline, asked).await;
    answer.unwrap_or_else(|_| Err(format!("no answer in {} s", deadline.as_secs())))
}

/// The innermost cause: the layers above it say that something did not work.
pub(crate) fn cause(error: &dyn Error) -> String {
    let mut inner = error;
    while let Some(next) = inner.source() {
        inner = next;
    }
    inner.to_string()
}

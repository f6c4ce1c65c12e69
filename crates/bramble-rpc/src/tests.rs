//! Who is answered, and whom one believes, over a real socket.

use crate::node::node_server::Node;
use crate::node::*;
use crate::{ConnectError, Credentials, connect, serve};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use std::net::SocketAddr;
use tonic::{Request, Response, Status};

struct Authority(Issuer<'static, KeyPair>, String);

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority(Issuer::new(params, key), pem)
    }

    /// As the tool issues them: a machine for its names, somebody who asks for nothing but asking.
    fn issue(&self, names: &[&str], believes: &str) -> Credentials {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
        let usage = match names.is_empty() {
            true => ExtendedKeyUsagePurpose::ClientAuth,
            false => ExtendedKeyUsagePurpose::ServerAuth,
        };
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages.push(usage);
        let certificate = params.signed_by(&key, &self.0).unwrap().pem();
        Credentials { certificate, key: key.serialize_pem(), authorities: believes.to_string() }
    }
}

struct Machine;

#[tonic::async_trait]
impl Node for Machine {
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        Ok(Response::new(StatusReply { name: "n1".into(), ..StatusReply::default() }))
    }

    type LogsStream = tokio_stream::Once<Result<LogsReply, Status>>;

    async fn logs(&self, request: Request<LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        Ok(Response::new(tokio_stream::once(Ok(LogsReply { text: request.into_inner().unit.into() }))))
    }

    async fn update(&self, _: Request<UpdateRequest>) -> Result<Response<UpdateReply>, Status> {
        Err(Status::unimplemented("update"))
    }

    async fn hold(&self, _: Request<HoldRequest>) -> Result<Response<HoldReply>, Status> {
        Err(Status::unimplemented("hold"))
    }

    async fn configure(&self, _: Request<ConfigureRequest>) -> Result<Response<ConfigureReply>, Status> {
        Err(Status::unimplemented("configure"))
    }

    async fn power(&self, _: Request<PowerRequest>) -> Result<Response<PowerReply>, Status> {
        Err(Status::unimplemented("power"))
    }
}

/// A machine that answers on a port of its own.
async fn start(credentials: Credentials) -> SocketAddr {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    tokio::spawn(async move { serve(Machine, free, &credentials).await });
    while tokio::net::TcpStream::connect(free).await.is_err() {
        tokio::task::yield_now().await;
    }
    free
}

#[tokio::test]
async fn a_client_of_the_authority_is_answered() {
    let authority = Authority::new();
    let at = start(authority.issue(&["n1"], &authority.1)).await.to_string();
    let mut client = connect("n1", &at, &authority.issue(&[], &authority.1)).await.unwrap();
    assert_eq!(client.status(StatusRequest {}).await.unwrap().into_inner().name, "n1");
    let request = LogsRequest { unit: "ssh".into(), ..LogsRequest::default() };
    let mut lines = client.logs(request).await.unwrap().into_inner();
    assert_eq!(lines.message().await.unwrap().unwrap().text, b"ssh");
    assert_eq!(lines.message().await.unwrap(), None);
}

#[tokio::test]
async fn strangers_and_other_machines_are_refused() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let at = start(authority.issue(&["n1"], &authority.1)).await.to_string();
    // Of another cluster.
    let asked = ask("n1", &at, stranger.issue(&[], &authority.1)).await;
    assert!(asked.is_err(), "a stranger was answered");
    // Another machine of the cluster has a certificate too, but not one for asking.
    let asked = ask("n1", &at, authority.issue(&["n2"], &authority.1)).await;
    assert!(asked.is_err(), "a machine was answered");
    // Whoever answers with another cluster's certificate, or as another machine, is not believed.
    let asked = connect("n1", &at, &authority.issue(&[], &stranger.1)).await;
    assert!(matches!(asked, Err(ConnectError::Unreachable { .. })));
    let asked = connect("n2", &at, &authority.issue(&[], &authority.1)).await;
    assert!(matches!(asked, Err(ConnectError::Unreachable { .. })));
}

/// TLS 1.3 tells a client that it was refused only with the first answer.
async fn ask(name: &str, at: &str, credentials: Credentials) -> Result<(), String> {
    let mut client = connect(name, at, &credentials).await.map_err(|e| e.to_string())?;
    client.status(StatusRequest {}).await.map(drop).map_err(|e| e.to_string())
}

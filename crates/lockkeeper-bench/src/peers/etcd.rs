//! etcd's own lock service: `Lock` and `Unlock` on the server, with one lease for each client.
//! gRPC is spoken by hand: HTTP/2 through `h2`, over one connection for each client, and messages
//! of two fields.

use super::{
    Client, Granted, Key, Peer,
    server::{Missing, Server, failed, installed},
};
use crate::{
    place,
    trouble::{Result, trouble},
};
use bytes::Bytes;
use h2::client::SendRequest;
use rustix::process::Signal;
use std::{net::Ipv4Addr, path::Path, process::Command, sync::Arc};
use tokio::{net::TcpStream, task::JoinHandle};

/// How long the lease of a client lives, in seconds; longer than any of them is needed.
const LEASE: u64 = 600;

/// A server.
pub(crate) struct Etcd {
    server: Server,
    port: u16,
}

impl Etcd {
    pub(crate) async fn start() -> std::result::Result<Arc<Etcd>, Missing> {
        let program = installed("etcd")?;
        Etcd::begin(&program).await.map_err(|why| failed(&why))
    }

    async fn begin(program: &Path) -> Result<Arc<Etcd>> {
        let (folder, port, peers) = (place::folder()?, place::free_port()?, place::free_port()?);
        let (url, peer_url) = (at(port), at(peers));
        let mut command = Command::new(program);
        command.args(["--name", "bench", "--log-level", "error"]);
        command.args(["--logger", "zap"]);
        command.arg("--data-dir").arg(folder.path().join("data"));
        command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
        command.args(["--listen-peer-urls", &peer_url]);
        command.args(["--initial-advertise-peer-urls", &peer_url]);
        command.args(["--initial-cluster", &format!("bench={peer_url}")]);
        let server = Server::start(command, folder, Signal::TERM)?;
        let mut etcd = Etcd { server, port };
        // It serves when it can grant something.
        etcd.server.ready(|| Connection::open(port)).await?;
        Ok(Arc::new(etcd))
    }

    /// Where `etcdctl` finds it.
    pub(crate) fn url(&self) -> String {
        at(self.port)
    }
}

fn at(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

impl Peer for Arc<Etcd> {
    type Client = EtcdClient;

    async fn client(&self, _: usize) -> Result<EtcdClient> {
        let connection = Connection::open(self.port).await?;
        Ok(EtcdClient { connection, held: Vec::new(), _etcd: self.clone() })
    }
}

/// One connection, with a lease.
pub(crate) struct EtcdClient {
    connection: Connection,
    held: Vec<Bytes>,
    /// Keeps the server.
    _etcd: Arc<Etcd>,
}

impl Client for EtcdClient {
    async fn acquire(&mut self, key: &Key) -> Result<Granted> {
        let mut ask = Vec::new();
        put_bytes(&mut ask, 1, key.text.as_bytes());
        put_number(&mut ask, 2, self.connection.lease);
        let said = self.connection.call("v3lockpb.Lock/Lock", &ask).await?;
        match field(&said, 2) {
            Some(Field::Bytes(name)) => self.held.push(Bytes::copy_from_slice(name)),
            _ => return trouble("it locked, and did not say as what"),
        }
        Ok(Granted::Yes)
    }

    async fn release(&mut self) -> Result<()> {
        for name in std::mem::take(&mut self.held) {
            let mut ask = Vec::new();
            put_bytes(&mut ask, 1, &name);
            self.connection.call("v3lockpb.Lock/Unlock", &ask).await?;
        }
        Ok(())
    }

    async fn close(mut self) -> Result<()> {
        let mut ask = Vec::new();
        put_number(&mut ask, 1, self.connection.lease);
        self.connection.call("etcdserverpb.Lease/LeaseRevoke", &ask).await.map(drop)
    }
}

/// What is said over one connection.
struct Connection {
    send: SendRequest<Bytes>,
    port: u16,
    lease: u64,
    moves: JoinHandle<()>,
}

impl Connection {
    async fn open(port: u16) -> Result<Connection> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.set_nodelay(true)?;
        let (send, connection) = h2::client::handshake(stream).await?;
        let moves = tokio::spawn(async move { drop(connection.await) });
        let mut connection = Connection { send, port, lease: 0, moves };
        let mut ask = Vec::new();
        put_number(&mut ask, 1, LEASE);
        let said = connection.call("etcdserverpb.Lease/LeaseGrant", &ask).await?;
        match field(&said, 2) {
            Some(Field::Number(lease)) => connection.lease = lease,
            _ => return trouble("it grants no lease"),
        }
        Ok(connection)
    }

    /// One call and its answer.
    async fn call(&mut self, method: &str, message: &[u8]) -> Result<Vec<u8>> {
        let request = http::Request::post(format!("http://127.0.0.1:{}/{method}", self.port))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())?;
        // Not compressed, and so long.
        let mut framed = vec![0];
        framed.extend((message.len() as u32).to_be_bytes());
        framed.extend(message);
        std::future::poll_fn(|context| self.send.poll_ready(context)).await?;
        let (response, mut body) = self.send.send_request(request, false)?;
        body.send_data(framed.into(), true)?;
        let response = response.await?;
        let mut status = response.headers().get("grpc-status").cloned();
        let mut body = response.into_body();
        let mut said = Vec::new();
        while let Some(some) = body.data().await {
            let some = some?;
            body.flow_control().release_capacity(some.len())?;
            said.extend(some);
        }
        if let Some(trailers) = body.trailers().await? {
            status = trailers.get("grpc-status").cloned().or(status);
        }
        match status {
            Some(status) if status == "0" && said.len() >= 5 => Ok(said.split_off(5)),
            status => trouble(format!("{method}: status {status:?}")),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.moves.abort();
    }
}

/// A field of a message.
#[derive(PartialEq, Debug)]
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn put_varint(to: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        to.push(number as u8 | 0x80);
        number >>= 7;
    }
    to.push(number as u8);
}

fn put_number(to: &mut Vec<u8>, field: u64, number: u64) {
    put_varint(to, field << 3);
    put_varint(to, number);
}

fn put_bytes(to: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_varint(to, field << 3 | 2);
    put_varint(to, bytes.len() as u64);
    to.extend(bytes);
}

/// The field of this number, if the message has it and is whole up to there.
fn field(mut message: &[u8], wanted: u64) -> Option<Field<'_>> {
    loop {
        let tag = varint(&mut message)?;
        let found = match tag & 7 {
            0 => Field::Number(varint(&mut message)?),
            2 => {
                let length = usize::try_from(varint(&mut message)?).ok()?;
                let (bytes, rest) = message.split_at_checked(length)?;
                message = rest;
                Field::Bytes(bytes)
            }
            _ => return None,
        };
        if tag >> 3 == wanted {
            return Some(found);
        }
    }
}

fn varint(from: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = from.split_first()?;
        *from = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_again() {
        let mut message = Vec::new();
        put_bytes(&mut message, 1, b"header");
        put_number(&mut message, 2, 7_587_869_134_500_000_000);
        put_bytes(&mut message, 3, &[9; 300]);
        assert_eq!(field(&message, 1), Some(Field::Bytes(b"header")));
        assert_eq!(field(&message, 2), Some(Field::Number(7_587_869_134_500_000_000)));
        assert_eq!(field(&message, 3), Some(Field::Bytes(&[9; 300])));
        assert_eq!(field(&message, 4), None);
        assert_eq!(field(&message[..message.len() - 1], 3), None, "it is cut");
    }
}

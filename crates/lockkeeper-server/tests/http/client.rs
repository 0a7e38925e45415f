//! A client of a few lines, so that a test can send what no proper client would.

use serde_json::Value;
use std::{net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::timeout,
};

/// Long enough for anything that happens, short enough for what does not.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Client {
    pub(crate) wire: BufReader<TcpStream>,
    host: String,
    headers: Vec<(String, String)>,
    /// Whether a body in pieces came to its end, and was not cut off.
    pub(crate) is_whole: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(it, _)| it.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The stable word of an error.
    pub(crate) fn word(&self) -> String {
        self.json()["error"]["data"]["code"].as_str().unwrap_or_default().to_owned()
    }
}

impl Client {
    pub(crate) async fn new(addr: SocketAddr) -> Client {
        let stream = TcpStream::connect(addr).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Client {
            wire: BufReader::new(stream),
            host: addr.to_string(),
            headers: Vec::new(),
            is_whole: false,
        }
    }

    /// Sends this with each request; an empty value leaves the header out.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Client {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) async fn raw(&mut self, bytes: impl AsRef<[u8]>) {
        self.wire.get_mut().write_all(bytes.as_ref()).await.unwrap();
    }

    /// Says nothing more, and goes on listening.
    pub(crate) async fn end_of_writing(&mut self) {
        self.wire.get_mut().shutdown().await.unwrap();
    }

    /// The head and the body of a request, as they are sent.
    pub(crate) fn written(&self, verb: &str, path: &str, body: Option<&str>) -> String {
        let mut headers = vec![("host".to_owned(), self.host.clone())];
        if body.is_some() {
            headers.push(("content-type".to_owned(), "application/json".to_owned()));
        }
        for (name, value) in &self.headers {
            headers.retain(|(it, _)| it != name);
            if !value.is_empty() {
                headers.push((name.clone(), value.clone()));
            }
        }
        let mut text = format!("{verb} {path} HTTP/1.1\r\n");
        for (name, value) in headers {
            text += &format!("{name}: {value}\r\n");
        }
        if let Some(body) = body {
            text += &format!("content-length: {}\r\n\r\n{body}", body.len());
        } else {
            text += "\r\n";
        }
        text
    }

    pub(crate) async fn send(&mut self, verb: &str, path: &str, body: Option<&str>) {
        let text = self.written(verb, path, body);
        self.raw(text).await;
    }

    pub(crate) async fn ask(&mut self, verb: &str, path: &str, body: Option<&str>) -> Reply {
        self.send(verb, path, body).await;
        self.reply().await
    }

    pub(crate) async fn get(&mut self, path: &str) -> Reply {
        self.ask("GET", path, None).await
    }

    pub(crate) async fn post(&mut self, method: &str, params: Value) -> Reply {
        self.ask("POST", &format!("/v1/{method}"), Some(&params.to_string())).await
    }

    /// The result of a method that must succeed.
    pub(crate) async fn call(&mut self, method: &str, params: Value) -> Value {
        let reply = self.post(method, params).await;
        assert_eq!(reply.status, 200, "{method}: {reply:?}");
        reply.json()
    }

    /// Opens a detached session.
    pub(crate) async fn open(&mut self, project: &str, agent: &str) -> u64 {
        let params = serde_json::json!({"project": project, "agent": agent, "kind": "detached"});
        self.call("session.open", params).await["session_opened"]["session"].as_u64().unwrap()
    }

    pub(crate) async fn reply(&mut self) -> Reply {
        let reply = timeout(PATIENCE, self.read_reply()).await.expect("an answer");
        reply.expect("an answer, not the end")
    }

    /// Status and headers; none at the end of the connection.
    pub(crate) async fn head(&mut self) -> Option<Reply> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if self.wire.read_line(&mut line).await.unwrap_or(0) == 0 {
                return None;
            }
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let status = lines[0].split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines[1..].iter().map(|line| line.split_once(": ").unwrap());
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Some(Reply { status, headers, body: String::new() })
    }

    async fn read_reply(&mut self) -> Option<Reply> {
        let mut reply = self.head().await?;
        if let Some(length) = reply.header("content-length") {
            let mut body = vec![0; length.parse().unwrap()];
            self.wire.read_exact(&mut body).await.ok()?;
            reply.body = String::from_utf8(body).unwrap();
        }
        Some(reply)
    }

    /// The next piece of a body whose length nobody knows; none at its end.
    pub(crate) async fn chunk(&mut self) -> Option<String> {
        let mut size = String::new();
        if self.wire.read_line(&mut size).await.unwrap_or(0) == 0 {
            return None;
        }
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        let mut body = vec![0; size + 2];
        self.wire.read_exact(&mut body).await.ok()?;
        body.truncate(size);
        self.is_whole = size == 0;
        (size > 0).then(|| String::from_utf8(body).unwrap())
    }

    /// Waits for the end of the connection; how many bytes came before.
    pub(crate) async fn end(&mut self) -> usize {
        let mut rest = Vec::new();
        let read = timeout(PATIENCE, self.wire.read_to_end(&mut rest)).await;
        let _ = read.expect("the end of the connection");
        rest.len()
    }
}

//! A network that misbehaves on request, between a client and a real server.
//!
//! A test gives a function from request line to [`Fault`]. Each connection carries one request, which is passed on with
//! `Connection: close`, so that what happens to a connection happens to one request.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What happens to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    Pass,
    /// It is answered so, and never reaches the server: status, header lines.
    Answer(u16, String),
    /// The connection is cut after so many bytes of its body.
    CutRequest(usize),
    /// The connection is cut after so many bytes of the answer's body.
    CutResponse(usize),
    /// The connection is cut when the server has answered, and the client does not learn how.
    LoseResponse,
    /// The answer's body comes one byte at a time, with such pauses.
    Drip(Duration),
}

/// One request that came through: its line, and its `Range` or `Content-Range`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Passed {
    pub(crate) line: String,
    pub(crate) range: Option<String>,
}

type Rule = dyn Fn(&str, usize) -> Fault + Send + Sync;

/// A running proxy; stopped when dropped.
pub(crate) struct FaultProxy {
    /// `127.0.0.1:PORT`.
    pub(crate) host: String,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    target: String,
    rule: Box<Rule>,
    passed: Mutex<Vec<Passed>>,
    /// How often each method and kind of request came.
    counts: Mutex<BTreeMap<String, usize>>,
}

impl FaultProxy {
    /// Starts a proxy to the server at `target`. `rule` gets the request line without the version, and how many of its kind (see
    /// [`kind`]) came before.
    pub(crate) async fn start(target: &str, rule: impl Fn(&str, usize) -> Fault + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let host = listener.local_addr().expect("address").to_string();
        let shared = Arc::new(Shared {
            target: target.to_owned(),
            rule: Box::new(rule),
            passed: Mutex::default(),
            counts: Mutex::default(),
        });
        let task = tokio::spawn(serve(listener, Arc::clone(&shared)));
        Self { host, shared, task }
    }

    /// The requests so far.
    pub(crate) fn passed(&self) -> Vec<Passed> {
        self.shared.passed.lock().expect("lock").clone()
    }

    /// The requests of a kind so far.
    pub(crate) fn of_kind(&self, wanted: &str) -> Vec<Passed> {
        self.passed().into_iter().filter(|passed| kind(&passed.line) == wanted).collect()
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a request is: `GET blob`, `HEAD manifest`, `PATCH upload`, `GET other`.
pub(crate) fn kind(line: &str) -> String {
    let (method, path) = line.split_once(' ').unwrap_or((line, ""));
    let what = match path {
        path if path.contains("/blobs/uploads/") => "upload",
        path if path.contains("/blobs/") => "blob",
        path if path.contains("/manifests/") => "manifest",
        _ => "other",
    };
    format!("{method} {what}")
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((client, _)) = listener.accept().await else { return };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            // Connections that end early are what it is for.
            let _ = connection(client, &shared).await;
        });
    }
}

async fn connection(mut client: TcpStream, shared: &Shared) -> io::Result<()> {
    let head = read_head(&mut client).await?;
    let text = String::from_utf8_lossy(&head).into_owned();
    let line = text.lines().next().unwrap_or("").trim_end_matches(" HTTP/1.1").to_owned();
    let fault = shared.note(&line, &text);
    if let Fault::Answer(status, headers) = &fault {
        let answer = format!("HTTP/1.1 {status} Fault\r\ncontent-length: 0\r\nconnection: close\r\n{headers}\r\n");
        drain(&mut client, &text).await?;
        return client.write_all(answer.as_bytes()).await;
    }
    let mut server = TcpStream::connect(&shared.target).await?;
    let head = text.replacen("\r\n", "\r\nConnection: close\r\n", 1);
    server.write_all(head.as_bytes()).await?;
    let (mut client_reads, mut client_writes) = client.split();
    let (mut server_reads, mut server_writes) = server.split();
    let up = async {
        match fault {
            Fault::CutRequest(count) => copy(&mut client_reads, &mut server_writes, count).await,
            _ => copy(&mut client_reads, &mut server_writes, usize::MAX).await,
        }
    };
    let down = async {
        let head = read_head(&mut server_reads).await?;
        if fault == Fault::LoseResponse {
            return Ok(());
        }
        client_writes.write_all(&head).await?;
        match fault {
            Fault::CutResponse(count) => copy(&mut server_reads, &mut client_writes, count).await,
            Fault::Drip(pause) => drip(&mut server_reads, &mut client_writes, pause).await,
            _ => copy(&mut server_reads, &mut client_writes, usize::MAX).await,
        }
    };
    let cut = matches!(fault, Fault::CutRequest(_));
    tokio::select! {
        result = down => result,
        // Where the request is cut, no answer is waited for; else the client just has no more to say.
        result = async { let sent = up.await; if cut { sent } else { std::future::pending().await } } => result,
    }
}

impl Shared {
    fn note(&self, line: &str, head: &str) -> Fault {
        let range = head.lines().find_map(|header| {
            let (name, value) = header.split_once(':')?;
            ["range", "content-range"].contains(&name.to_lowercase().as_str()).then(|| value.trim().to_owned())
        });
        self.passed.lock().expect("lock").push(Passed { line: line.to_owned(), range });
        let mut counts = self.counts.lock().expect("lock");
        let count = counts.entry(kind(line)).or_default();
        *count += 1;
        (self.rule)(line, *count - 1)
    }
}

async fn read_head(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(from.read_u8().await?);
    }
    Ok(head)
}

/// Reads the body of a request that is answered at once, so that the client gets the answer and not a reset.
async fn drain(client: &mut TcpStream, head: &str) -> io::Result<()> {
    let length = head.lines().find_map(|header| {
        let (name, value) = header.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<u64>().ok())?
    });
    let mut body = client.take(length.unwrap_or(0));
    tokio::io::copy(&mut body, &mut tokio::io::sink()).await.map(drop)
}

async fn copy(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin), most: usize) -> io::Result<()> {
    let mut buffer = vec![0; 16 << 10];
    let mut left = most;
    while left > 0 {
        let room = buffer.len().min(left);
        let count = from.read(&mut buffer[..room]).await?;
        if count == 0 {
            break;
        }
        to.write_all(&buffer[..count]).await?;
        left -= count;
    }
    to.flush().await
}

async fn drip(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    pause: Duration,
) -> io::Result<()> {
    loop {
        let byte = from.read_u8().await?;
        to.write_all(&[byte]).await?;
        tokio::time::sleep(pause).await;
    }
}

//! A server that misbehaves on request, for what no real registry does.
//!
//! A test gives a function from request to [`Answer`]; the server keeps what it was asked.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// What a client asked.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// Method and path with query: `GET /v2/a/tags/list?n=1`.
    pub(crate) line: String,
    /// `Authorization`, if sent.
    pub(crate) authorization: Option<String>,
    /// `Range`, if sent.
    pub(crate) range: Option<String>,
    /// `Content-Range`, if sent.
    pub(crate) content_range: Option<String>,
    /// The body, as far as it came.
    pub(crate) body: Bytes,
}

/// How the body of an answer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// As it should.
    Complete,
    /// The connection is cut.
    Cut,
    /// Nothing more comes.
    Stall,
    /// The body is sent again and again.
    Never,
}

/// What the server says.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Bytes,
    end: End,
}

impl Answer {
    /// An answer with a body.
    pub(crate) fn new(status: u16, body: impl Into<Bytes>) -> Self {
        Self { status, headers: Vec::new(), body: body.into(), end: End::Complete }
    }

    /// Adds a header.
    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Ends the body in another way.
    pub(crate) fn ends(mut self, end: End) -> Self {
        self.end = end;
        self
    }

    /// A redirect.
    pub(crate) fn redirect(to: impl Into<String>) -> Self {
        Self::new(307, "").header("location", to)
    }

    /// A 401 that names a token server.
    pub(crate) fn challenge(realm: &str) -> Self {
        Self::new(401, "").header("www-authenticate", format!("Bearer realm=\"{realm}\",service=\"test\""))
    }
}

type Behaviour = dyn Fn(&Asked) -> Answer + Send + Sync;

/// A running server; stopped when dropped.
pub(crate) struct FakeRegistry {
    /// `127.0.0.1:PORT`.
    pub(crate) host: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: JoinHandle<()>,
}

impl FakeRegistry {
    /// Starts a server.
    pub(crate) async fn start(behaviour: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let host = listener.local_addr().expect("address").to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn(serve(listener, Arc::new(behaviour), Arc::clone(&asked)));
        Self { host, asked, task }
    }

    /// What was asked so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("lock").clone()
    }

    /// The requests without what came with them.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.asked().into_iter().map(|a| a.line).collect()
    }

    /// Whether any credential came here.
    pub(crate) fn saw_credentials(&self) -> bool {
        self.asked().iter().any(|a| a.authorization.is_some() || String::from_utf8_lossy(&a.body).contains("secret"))
    }
}

impl Drop for FakeRegistry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, behaviour: Arc<Behaviour>, log: Arc<Mutex<Vec<Asked>>>) {
    loop {
        let Ok((socket, _)) = listener.accept().await else { return };
        let (behaviour, log) = (Arc::clone(&behaviour), Arc::clone(&log));
        tokio::spawn(async move {
            let service = service_fn(|request| answer(request, &behaviour, &log));
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service);
            // Clients that give up are what some tests are about.
            let _ = connection.await;
        });
    }
}

type Body = StreamBody<BoxStream<'static, Result<Frame<Bytes>, std::io::Error>>>;

async fn answer(
    request: Request<Incoming>,
    behaviour: &Arc<Behaviour>,
    log: &Arc<Mutex<Vec<Asked>>>,
) -> Result<Response<Body>, Infallible> {
    let header = |name: &str| request.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let line = format!("{} {}", request.method(), request.uri());
    let (authorization, range, content_range) = (header("authorization"), header("range"), header("content-range"));
    let body = received(request.into_body()).await;
    let asked = Asked { line, authorization, range, content_range, body };
    log.lock().expect("lock").push(asked.clone());
    let answer = behaviour(&asked);
    let mut response = Response::builder().status(answer.status);
    for (name, value) in &answer.headers {
        response = response.header(name, value);
    }
    Ok(response.body(StreamBody::new(body_of(answer))).expect("test answers are valid"))
}

/// Reads a body to its end, or to where it is cut.
async fn received(mut body: Incoming) -> Bytes {
    let mut content = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        content.extend_from_slice(&frame.into_data().unwrap_or_default());
    }
    content.into()
}

fn body_of(answer: Answer) -> BoxStream<'static, Result<Frame<Bytes>, std::io::Error>> {
    let body = answer.body;
    let once = stream::iter((!body.is_empty()).then(|| Ok(Frame::data(body.clone()))));
    // The cut comes after a while, or the server would not send what stands before it.
    let cut = stream::once(async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        Err(std::io::Error::other("cut"))
    });
    match answer.end {
        End::Complete => once.boxed(),
        End::Cut => once.chain(cut).boxed(),
        End::Stall => once.chain(stream::pending()).boxed(),
        End::Never => stream::repeat_with(move || Ok(Frame::data(body.clone()))).boxed(),
    }
}

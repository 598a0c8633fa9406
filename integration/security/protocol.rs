//! Servers that break the protocol under TLS: floods of frames, of headers and of bytes. Each is left in time and within the memory
//! that every build here has, with a reason.

use std::io::{self, Write as _};

use super::{Scene, as_both};
use crate::support::build::User;
use crate::support::pki::{Authority, Kind, Pair};
use crate::support::registry::{Form, Registry};
use crate::support::tls_server::{Connection, TlsServer};

/// Builds on an image of a registry of that authority.
fn pull(user: User, authority: &Authority, host: &str, lines: &str) -> super::Output {
    let scene = Scene::new(user);
    let toml = format!("[registry.\"{host}\"]\nca = [\"{}\"]\n{lines}\n", authority.certificate().display());
    let config = scene.project.config(&toml);
    let args = ["--config", config.to_str().unwrap(), "-o", "type=cacheonly"];
    scene.build(&format!("FROM {host}/lib/base:1\nCOPY Dockerfile /\n"), &args)
}

/// A frame of HTTP/2: type, flags, stream, what is in it.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;

/// Sends again and again until the client has gone.
fn endlessly(connection: &mut Connection, piece: &[u8]) -> io::Result<()> {
    let many = piece.repeat(1.max((64 << 10) / piece.len()));
    loop {
        connection.write_all(&many)?;
    }
}

#[test]
fn r8_floods_of_http_2_are_not_listened_to() {
    let authority = Authority::new();
    let pair = authority.server();
    let settings = frame(SETTINGS, 0, 0, &[]);
    // `:status: 200` of the static table, and headers that never end.
    let headers = frame(HEADERS, 0, 1, &[0x88]);
    for (name, start, flood) in [
        ("rapid resets", settings.clone(), frame(RST_STREAM, 0, 1, &[0, 0, 0, 8])),
        ("continuations", [&settings[..], &headers].concat(), frame(CONTINUATION, 0, 1, &[0x40, 1, b'a', 1, b'b'])),
        ("empty data", [&settings[..], &frame(HEADERS, 4, 1, &[0x88])].concat(), frame(DATA, 0, 1, &[])),
        ("settings", settings.clone(), settings.clone()),
    ] {
        let server = TlsServer::start(&pair, move |_, connection| {
            connection.write_all(&start)?;
            endlessly(connection, &flood)
        });
        as_both(|user| {
            let output = pull(user, &authority, &server.host, "").failure(4);
            let _ = output.says("it does not answer in HTTP/1.1").says("hint: check that");
        });
        let offered = server.offered();
        assert!(!offered.is_empty() && offered.iter().all(|names| names == &["http/1.1"]), "{name}: {offered:?}");
    }
}

/// What a server sends without end, once it has been asked for a path.
type Flood = (&'static str, &'static [u8], &'static [u8], &'static str);

const FLOODS: [Flood; 5] = [
    (
        "headers",
        b"HTTP/1.1 200 OK\r\n",
        b"x-a: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n",
        "it does not answer in HTTP/1.1",
    ),
    ("one header", b"HTTP/1.1 200 OK\r\nx-a: ", b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "it does not answer in HTTP/1.1"),
    (
        "data in chunks",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        b"4\r\naaaa\r\n",
        "is larger than 4194304 bytes",
    ),
    ("data to the end", b"HTTP/1.1 200 OK\r\n\r\n", b"aaaaaaaaaaaaaaaaaaaaaaaa", "is larger than 4194304 bytes"),
    ("an error", b"HTTP/1.1 404 Not Found\r\n\r\n", b"aaaaaaaaaaaaaaaaaaaaaaaa", "not found"),
];

#[test]
fn r8_answers_without_end_are_left() {
    let authority = Authority::new();
    let pair = authority.server();
    for (_, start, flood, message) in FLOODS {
        let server = TlsServer::start(&pair, move |_, connection| {
            connection.write_all(start)?;
            endlessly(connection, flood)
        });
        as_both(|user| drop(pull(user, &authority, &server.host, "").failure(4).says(message)));
    }
}

#[test]
fn r8_tokens_without_end_are_left() {
    let authority = Authority::new();
    let server = TlsServer::with_host(&authority.server(), |host| {
        let challenge = format!(
            "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Bearer realm=\"https://{host}/token\",service=\"s\"\r\n\
             content-length: 0\r\nconnection: close\r\n\r\n"
        );
        move |head: &str, connection: &mut Connection| match head.starts_with("GET /token") {
            true => {
                connection.write_all(b"HTTP/1.1 200 OK\r\n\r\n{\"token\": \"")?;
                endlessly(connection, b"aaaaaaaaaaaaaaaa")
            }
            false => connection.write_all(challenge.as_bytes()),
        }
    });
    as_both(|user| {
        let _ = pull(user, &authority, &server.host, "").failure(4).says("is larger than 1048576 bytes");
    });
}

/// A registry of this machine with a certificate.
fn serving(pair: &Pair) -> Registry {
    Registry::configured(&Form { http: crate::support::pki::tls(pair, None), ..Form::default() })
}

#[test]
fn r11_certificates_that_do_not_hold_are_refused_with_a_remedy() {
    let authority = Authority::new();
    let issue = |name: &str, names: &str, days: &str| authority.issue(name, names, Kind::Ec, days);
    let loopback = "IP:127.0.0.1";
    for (pair, reason, remedy) in [
        (issue("old", loopback, "-1"), "its certificate has expired", "renew the certificate"),
        (issue("other", "DNS:a.test", "2"), "its certificate is for a.test", "made for 127.0.0.1 too"),
        (
            issue("wild", "DNS:*.test,IP:127.0.0.2", "2"),
            "its certificate is for *.test, 127.0.0.2",
            "made for 127.0.0.1",
        ),
        (authority.self_signed(loopback), "its certificate is one of an authority", "add that certificate itself"),
        (Authority::named("stranger").server(), "of an authority that is not known here", "add its authority"),
    ] {
        let registry = serving(&pair);
        as_both(|user| {
            let output = pull(user, &authority, &registry.host, "").failure(4).says(reason).says("hint: ");
            let _ = output.says(remedy).silent_about("http://");
        });
    }
    let registry = serving(&authority.server());
    // What holds is believed, and says that there is no such image.
    as_both(|user| drop(pull(user, &authority, &registry.host, "").failure(4).says("lib/base:1: not found")));
}

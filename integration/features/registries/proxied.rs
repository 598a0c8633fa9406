//! Registries behind proxies that want a login.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Settings;
use crate::support::build::{BOTH, User};
use crate::support::nginx::Nginx;
use crate::support::pki::{Authority, Kind, tls};
use crate::support::registry::{Form, Registry};

const LOGIN: &str = "proxy user:p@ss";
/// The same in a URL.
const IN_URL: &str = "proxy%20user:p%40ss";

fn header() -> String {
    format!("Basic {}", STANDARD.encode(LOGIN))
}

/// A proxy for TLS that leads to one registry, whatever host is named, and lets [`LOGIN`] in.
fn tunnel(to: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (host, to) = (listener.local_addr().unwrap().to_string(), to.to_owned());
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let to = to.clone();
            // A client that gives up is none of the proxy's business.
            std::thread::spawn(move || drop(pass_on(client, &to)));
        }
    });
    host
}

fn pass_on(mut client: TcpStream, to: &str) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let wanted = format!("proxy-authorization: {}", header()).to_lowercase();
    if !String::from_utf8_lossy(&head).to_lowercase().contains(&wanted) {
        return client.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n");
    }
    let mut server = TcpStream::connect(to)?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    let (mut from, mut into) = (client.try_clone()?, server.try_clone()?);
    std::thread::spawn(move || drop(std::io::copy(&mut from, &mut into)));
    std::io::copy(&mut server, &mut client)?;
    client.shutdown(std::net::Shutdown::Both)
}

#[test]
fn a_proxy_lets_in_who_is_in_its_url() {
    let authority = Authority::new();
    let pair = authority.issue("proxied", "IP:127.0.0.1,DNS:secure.test", Kind::Ec, "2");
    let secure = Registry::configured(&Form { http: tls(&pair, None), ..Form::default() });
    let plain = Registry::start();
    let forward = Nginx::start(&format!(
        "    if ($http_proxy_authorization != \"{}\") {{ return 407; }}\n    location / {{ proxy_pass http://{}; \
         proxy_set_header Host $http_host; proxy_redirect off; }}",
        header(),
        plain.host
    ));
    let connect = tunnel(&secure.host);
    let known = format!("ca = [\"{}\"]", authority.certificate().display());
    let toml = format!("[registry.\"secure.test\"]\n{known}\n[registry.\"plain.test\"]\nhttp = true\n");
    let direct = Settings::of(&secure.host, &known);
    let _ = direct.push(User::Root, &format!("{}/lib/base:1", secure.host)).success();
    for user in BOTH {
        let with = |login: &str| {
            let url = |host: &str| format!("http://{login}{host}");
            let variables = vec![("HTTPS_PROXY", url(&connect)), ("http_proxy", url(&forward.host))];
            Settings { variables, ..Settings::toml(&toml) }
        };
        let known = with(&format!("{IN_URL}@"));
        let _ = known.push(user, "plain.test/lib/base:1").success();
        for host in ["plain.test", "secure.test"] {
            let _ = known.pull(user, &format!("{host}/lib/base:1")).success();
            let output = with("").pull(user, &format!("{host}/lib/base:1")).failure(4);
            let _ = output.says("hint: put user and password into the proxy's URL").silent_about("p@ss");
        }
        let wrong =
            with("somebody:hunter2@").pull(user, "secure.test/lib/base:1").failure(4).says("the proxy wants a login");
        let _ = wrong.silent_about("hunter2");
        // What is of this machine goes past any proxy, as it does with Docker.
        let _ = known.push(user, &format!("{}/lib/base:1", plain.host)).success();
        assert!(forward.requests().iter().all(|line| !line.contains(&plain.host)));
    }
}

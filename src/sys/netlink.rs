//! Network devices of the network namespace of the calling thread, through the kernel's rtnetlink.
//!
//! In: names, addresses. Out: what the kernel answers. Invariants: one socket a call; an answer is read until the kernel says that
//! it is complete, and nothing in it is believed to be longer than it is.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// Messages that are asked for here, `linux/rtnetlink.h`.
const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const GET_LINK: u16 = 18;
const SET_LINK: u16 = 19;
const NEW_ADDRESS: u16 = 20;

/// Kinds of answers, `linux/netlink.h`.
const ERROR: u16 = 2;
const DONE: u16 = 3;

const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const DUMP: u16 = 0x300;
const CREATE: u16 = 0x400;
const EXCLUSIVE: u16 = 0x200;

/// Attributes of links, `linux/if_link.h`.
const LINK_NAME: u16 = 3;
const LINK_MASTER: u16 = 10;
const LINK_INFO: u16 = 18;
const LINK_ALIAS: u16 = 20;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const VETH_PEER: u16 = 1;

/// Attributes of addresses, `linux/if_addr.h`.
const ADDRESS: u16 = 1;
const ADDRESS_LOCAL: u16 = 2;

/// Bytes of the header of a message, of a link in it, and of an address in it.
const HEADER: usize = 16;
const LINK_HEADER: usize = 16;
/// More than the kernel puts into one answer.
const ANSWER: usize = 1 << 16;
/// More than there are answers to a question about all links.
const ANSWERS: usize = 4096;

/// A network device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: i32,
    /// Its name.
    pub name: String,
    /// What its maker called it besides.
    pub alias: String,
    /// The number of the device it is part of; 0 for none.
    pub master: i32,
}

/// Returns all devices.
pub fn links() -> io::Result<Vec<Link>> {
    let message = Message::of_link(GET_LINK, DUMP, 0);
    Ok(message.ask()?.iter().filter_map(|answer| parse_link(answer)).collect())
}

/// Returns the device of a name.
pub fn link(name: &str) -> io::Result<Option<Link>> {
    Ok(links()?.into_iter().find(|link| link.name == name))
}

/// Removes a device.
pub fn delete_link(index: i32) -> io::Result<()> {
    Message::of_link(DELETE_LINK, ACKNOWLEDGE, index).ask().map(drop)
}

/// Calls a device something besides its name, for who looks at it later.
pub fn set_alias(index: i32, alias: &str) -> io::Result<()> {
    let mut message = Message::of_link(SET_LINK, ACKNOWLEDGE, index);
    message.attribute(LINK_ALIAS, alias.as_bytes());
    message.ask().map(drop)
}

/// Makes a device of this name that leads nowhere, with addresses and the lengths of their networks.
pub fn add_stand_in(name: &str, addresses: &[(IpAddr, u8)]) -> io::Result<()> {
    let mut message = Message::of_link(NEW_LINK, ACKNOWLEDGE | CREATE | EXCLUSIVE, 0);
    message.attribute(LINK_NAME, terminated(name).as_slice());
    message.nested(LINK_INFO, |info| {
        info.attribute(INFO_KIND, b"veth\0");
        info.nested(INFO_DATA, |data| {
            data.nested(VETH_PEER, |peer| {
                peer.0.extend([0; LINK_HEADER]);
                peer.attribute(LINK_NAME, b"peer0\0");
            });
        });
    });
    message.ask()?;
    let link = link(name)?.ok_or(io::ErrorKind::NotFound)?;
    addresses.iter().try_for_each(|(address, length)| add_address(link.index, *address, *length))
}

fn add_address(index: i32, address: IpAddr, length: u8) -> io::Result<()> {
    let (family, bytes) = match address {
        IpAddr::V4(address) => (libc::AF_INET, address.octets().to_vec()),
        IpAddr::V6(address) => (libc::AF_INET6, address.octets().to_vec()),
    };
    let mut message = Message::new(NEW_ADDRESS, ACKNOWLEDGE | CREATE | EXCLUSIVE);
    message.0.extend([family as u8, length, 0, 0]);
    message.0.extend(index.to_ne_bytes());
    message.attribute(ADDRESS_LOCAL, &bytes);
    message.attribute(ADDRESS, &bytes);
    message.ask().map(drop)
}

fn terminated(text: &str) -> Vec<u8> {
    text.bytes().chain([0]).collect()
}

/// A message being put together.
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: u16) -> Self {
        let mut bytes = 0u32.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((flags | REQUEST).to_ne_bytes());
        bytes.extend([0; HEADER - 8]);
        Self(bytes)
    }

    fn of_link(kind: u16, flags: u16, index: i32) -> Self {
        let mut message = Self::new(kind, flags);
        message.0.extend([0; 4]);
        message.0.extend(index.to_ne_bytes());
        message.0.extend([0; LINK_HEADER - 8]);
        message
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.nested(kind, |message| message.0.extend(value));
    }

    fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.0.len();
        self.0.extend(0u16.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        fill(self);
        let length = (self.0.len() - start) as u16;
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    /// Sends it and returns what the kernel answers.
    fn ask(mut self) -> io::Result<Vec<Vec<u8>>> {
        let length = self.0.len() as u32;
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        let socket = socket()?;
        rustix::net::send(&socket, &self.0, SendFlags::empty())?;
        let (mut answers, mut buffer) = (Vec::new(), vec![0u8; ANSWER]);
        loop {
            let (count, _) = rustix::net::recv(&socket, &mut buffer[..], RecvFlags::empty())?;
            if take(&buffer[..count], &mut answers)? {
                return Ok(answers);
            }
            if count == 0 || answers.len() > ANSWERS {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
    }
}

fn socket() -> io::Result<OwnedFd> {
    // That of routes is the protocol of number 0.
    Ok(rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?)
}

/// Takes the messages of one datagram; returns whether the last one was among them.
fn take(mut bytes: &[u8], answers: &mut Vec<Vec<u8>>) -> io::Result<bool> {
    while bytes.len() >= HEADER {
        let length = number(bytes, 0) as usize;
        let Some(message) = bytes.get(..length).filter(|message| message.len() >= HEADER) else { break };
        match short(message, 4) {
            DONE => return Ok(true),
            ERROR => return acknowledged(number(message, HEADER)),
            _ => answers.push(message.to_vec()),
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

fn acknowledged(code: i32) -> io::Result<bool> {
    if code == 0 { Ok(true) } else { Err(io::Error::from_raw_os_error(-code)) }
}

/// What is not there is zero.
fn number(bytes: &[u8], at: usize) -> i32 {
    let four = bytes.get(at..at + 4).and_then(|four| four.try_into().ok());
    four.map_or(0, i32::from_ne_bytes)
}

fn short(bytes: &[u8], at: usize) -> u16 {
    let two = bytes.get(at..at + 2).and_then(|two| two.try_into().ok());
    two.map_or(0, u16::from_ne_bytes)
}

fn parse_link(message: &[u8]) -> Option<Link> {
    if short(message, 4) != NEW_LINK {
        return None;
    }
    let mut link = Link { index: number(message, HEADER + 4), name: String::new(), alias: String::new(), master: 0 };
    let mut rest = message.get(HEADER + LINK_HEADER..)?;
    while rest.len() >= 4 {
        let length = usize::from(short(rest, 0));
        let value = rest.get(4..length)?;
        match short(rest, 2) {
            LINK_NAME => link.name = text(value),
            LINK_ALIAS => link.alias = text(value),
            LINK_MASTER => link.master = number(value, 0),
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(link)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::ns;

    /// Runs on a thread of its own, in a network namespace of its own.
    fn elsewhere(work: impl FnOnce() + Send + 'static) {
        let thread = std::thread::spawn(move || {
            ns::unshare(&[ns::Namespace::Net]).expect("a network namespace");
            work();
        });
        thread.join().expect("it went well");
    }

    #[test]
    fn a_stand_in_is_made_named_and_removed() {
        elsewhere(|| {
            let addresses = [("10.1.2.3".parse().expect("address"), 24), ("fd00::1".parse().expect("address"), 64)];
            add_stand_in("eth0", &addresses).expect("made");
            assert_eq!(add_stand_in("eth0", &[]).expect_err("there is one").kind(), io::ErrorKind::AlreadyExists);
            let made = link("eth0").expect("asked").expect("found");
            set_alias(made.index, "ours").expect("named");
            assert_eq!(link("eth0").expect("asked"), Some(Link { alias: "ours".into(), ..made.clone() }));
            let names: Vec<String> = links().expect("asked").into_iter().map(|link| link.name).collect();
            assert!(names.contains(&"lo".to_owned()) && names.contains(&"peer0".to_owned()), "{names:?}");
            delete_link(made.index).expect("removed");
            assert_eq!(link("eth0").expect("asked"), None);
            assert!(delete_link(made.index).is_err());
        });
    }

    #[test]
    fn answers_that_are_cut_short_are_no_links() {
        for length in 0..40 {
            let mut answers = Vec::new();
            let mut message = Message::of_link(NEW_LINK, 0, 7).0;
            message.resize(40, 0xff);
            message[..4].copy_from_slice(&40u32.to_ne_bytes());
            assert_eq!(take(&message[..length], &mut answers).ok(), Some(false), "{length}");
            assert!(answers.iter().all(|answer| parse_link(answer).is_none()), "{length}");
        }
    }
}

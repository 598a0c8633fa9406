//! What a step may ask of an ssh agent: which keys there are, and signatures. Nothing is sent or received here.
//!
//! In: bytes as the step and the agent write them, in any pieces. Out: bytes for the one or the other. Invariants: the agent
//! sees whole frames of two kinds only; a frame is at most 256 KiB; an answer is passed on only if one is due; if keys are
//! named, no other is listed or used.

use std::collections::BTreeSet;
use std::collections::VecDeque;

/// Longest frame, OpenSSH's number.
pub const MAX_FRAME: usize = 256 * 1024;

pub(super) const FAILURE: u8 = 5;
pub(super) const REQUEST_IDENTITIES: u8 = 11;
pub(super) const IDENTITIES_ANSWER: u8 = 12;
pub(super) const SIGN_REQUEST: u8 = 13;
pub(super) const SIGN_RESPONSE: u8 = 14;

/// What to do with what the step wrote.
#[derive(Debug, PartialEq, Eq)]
pub enum Client {
    /// Send these bytes, one frame, to the agent.
    Forward(Vec<u8>),
    /// Send these bytes, one frame, to the step.
    Answer(Vec<u8>),
    /// Close both ends: the step does not speak the protocol.
    Close,
}

/// What to do with what the agent wrote.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    /// Send these bytes, one frame, to the step.
    Answer(Vec<u8>),
    /// Close both ends: the agent does not speak the protocol.
    Close,
}

/// Stands between one step's connection and the agent.
#[derive(Debug, Default)]
pub struct AgentFilter {
    keys: Option<BTreeSet<Vec<u8>>>,
    from_client: Frames,
    from_agent: Frames,
    /// Kinds of the requests the agent has not answered yet.
    due: VecDeque<u8>,
}

impl AgentFilter {
    /// Makes a filter; `keys` are the public keys, as blobs, that may be used, none for all.
    pub fn new(keys: Option<BTreeSet<Vec<u8>>>) -> Self {
        Self { keys, ..Self::default() }
    }

    /// Takes bytes the step wrote.
    pub fn client(&mut self, bytes: &[u8]) -> Vec<Client> {
        self.from_client.add(bytes);
        let mut actions = Vec::new();
        loop {
            match self.from_client.next() {
                Next::Frame(body) => actions.push(self.request(&body)),
                Next::More => return actions,
                Next::Broken => {
                    actions.push(Client::Close);
                    return actions;
                }
            }
        }
    }

    fn request(&mut self, body: &[u8]) -> Client {
        let allowed = match body {
            [REQUEST_IDENTITIES] => true,
            [SIGN_REQUEST, rest @ ..] => self.may_sign(rest),
            _ => false,
        };
        // Answers come in the order of requests; one made up here must not overtake those of the agent.
        match (allowed, self.due.is_empty()) {
            (true, _) => {
                self.due.push_back(body[0]);
                Client::Forward(frame(body))
            }
            (false, true) => Client::Answer(frame(&[FAILURE])),
            (false, false) => Client::Close,
        }
    }

    fn may_sign(&self, request: &[u8]) -> bool {
        let Some((key, rest)) = string(request) else { return false };
        let Some((_data, flags)) = string(rest) else { return false };
        flags.len() == 4 && self.keys.as_ref().is_none_or(|keys| keys.contains(key))
    }

    /// Takes bytes the agent wrote.
    pub fn agent(&mut self, bytes: &[u8]) -> Vec<Reply> {
        self.from_agent.add(bytes);
        let mut actions = Vec::new();
        loop {
            match self.from_agent.next() {
                Next::Frame(body) => actions.push(self.answer(&body)),
                Next::More => return actions,
                Next::Broken => {
                    actions.push(Reply::Close);
                    return actions;
                }
            }
        }
    }

    fn answer(&mut self, body: &[u8]) -> Reply {
        match (self.due.pop_front(), body) {
            (None, _) => Reply::Close,
            (Some(REQUEST_IDENTITIES), [IDENTITIES_ANSWER, rest @ ..]) => match self.only_named(rest) {
                Some(body) => Reply::Answer(frame(&body)),
                None => Reply::Close,
            },
            (Some(SIGN_REQUEST), [SIGN_RESPONSE, ..]) => Reply::Answer(frame(body)),
            _ => Reply::Answer(frame(&[FAILURE])),
        }
    }

    /// The list of keys without those not named.
    fn only_named(&self, list: &[u8]) -> Option<Vec<u8>> {
        let (count, mut rest) = number(list)?;
        let mut kept = Vec::new();
        let mut kept_count = 0u32;
        for _ in 0..count {
            let (key, after_key) = string(rest)?;
            let (_comment, after) = string(after_key)?;
            if self.keys.as_ref().is_none_or(|keys| keys.contains(key)) {
                kept.extend_from_slice(&rest[..rest.len() - after.len()]);
                kept_count += 1;
            }
            rest = after;
        }
        let mut body = vec![IDENTITIES_ANSWER];
        body.extend_from_slice(&kept_count.to_be_bytes());
        body.extend_from_slice(&kept);
        Some(body)
    }
}

pub(super) fn number(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*number), rest))
}

pub(super) fn string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = number(bytes)?;
    rest.split_at_checked(length as usize)
}

pub(super) fn frame(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_be_bytes(), body].concat()
}

/// Bytes on their way to become frames.
#[derive(Debug, Default)]
struct Frames {
    bytes: Vec<u8>,
    broken: bool,
}

enum Next {
    Frame(Vec<u8>),
    More,
    Broken,
}

impl Frames {
    fn add(&mut self, bytes: &[u8]) {
        if !self.broken {
            self.bytes.extend_from_slice(bytes);
        }
    }

    fn next(&mut self) -> Next {
        let Some((length, rest)) = number(&self.bytes).filter(|_| !self.broken) else {
            return if self.broken { Next::Broken } else { Next::More };
        };
        let length = length as usize;
        if length == 0 || length > MAX_FRAME {
            self.broken = true;
            self.bytes = Vec::new();
            return Next::Broken;
        }
        if rest.len() < length {
            return Next::More;
        }
        let body = rest[..length].to_vec();
        self.bytes.drain(..4 + length);
        Next::Frame(body)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(bytes: &[u8]) -> Vec<u8> {
        frame(bytes)
    }

    fn sign(key: &[u8]) -> Vec<u8> {
        [&[SIGN_REQUEST][..], &text(key), &text(b"data"), &[0; 4]].concat()
    }

    #[test]
    fn s5_only_two_kinds_of_requests_reach_the_agent() {
        for kind in 0..=255u8 {
            let mut filter = AgentFilter::new(None);
            let body = match kind {
                SIGN_REQUEST => sign(b"key"),
                kind => vec![kind],
            };
            let expected = match kind {
                REQUEST_IDENTITIES | SIGN_REQUEST => Client::Forward(frame(&body)),
                _ => Client::Answer(frame(&[FAILURE])),
            };
            assert_eq!(filter.client(&frame(&body)), [expected], "{kind}");
        }
    }

    #[test]
    fn s5_lengths_out_of_range_close() {
        for length in [0u32, MAX_FRAME as u32 + 1, u32::MAX] {
            let mut filter = AgentFilter::new(None);
            assert_eq!(filter.client(&length.to_be_bytes()), [Client::Close], "{length}");
            assert_eq!(filter.client(&frame(&[REQUEST_IDENTITIES])), [Client::Close], "{length}");
            assert_eq!(filter.agent(&length.to_be_bytes()), [Reply::Close], "{length}");
        }
        let mut filter = AgentFilter::new(None);
        let longest = vec![1; MAX_FRAME];
        assert_eq!(filter.client(&frame(&longest)), [Client::Answer(frame(&[FAILURE]))]);
    }

    #[test]
    fn s5_only_named_keys_are_listed_and_used() {
        let mut filter = AgentFilter::new(Some([b"good".to_vec()].into()));
        assert_eq!(filter.client(&frame(&sign(b"bad"))), [Client::Answer(frame(&[FAILURE]))]);
        assert_eq!(filter.client(&frame(&sign(b"good"))), [Client::Forward(frame(&sign(b"good")))]);
        assert_eq!(filter.agent(&frame(&[SIGN_RESPONSE, 1])), [Reply::Answer(frame(&[SIGN_RESPONSE, 1]))]);
        filter.client(&frame(&[REQUEST_IDENTITIES]));
        let key = |name: &[u8]| [text(name), text(b"comment")].concat();
        let list =
            |count: u32, keys: &[Vec<u8>]| [&[IDENTITIES_ANSWER][..], &count.to_be_bytes(), &keys.concat()].concat();
        let all = frame(&list(2, &[key(b"bad"), key(b"good")]));
        assert_eq!(filter.agent(&all), [Reply::Answer(frame(&list(1, &[key(b"good")])))]);
        filter.client(&frame(&[REQUEST_IDENTITIES]));
        assert_eq!(filter.agent(&frame(&list(u32::MAX, &[]))), [Reply::Close]);
    }

    #[test]
    fn s5_answers_nobody_asked_for_close() {
        assert_eq!(AgentFilter::new(None).agent(&frame(&[SIGN_RESPONSE])), [Reply::Close]);
    }

    proptest! {
        #[test]
        fn s5_any_bytes_in_any_pieces_forward_only_requests(
            bytes in proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(11), Just(13), any::<u8>()], 0..300),
            cut in 1usize..20,
        ) {
            let mut whole = AgentFilter::new(None);
            let mut pieces = AgentFilter::new(None);
            let at_once = whole.client(&bytes);
            let mut split = Vec::new();
            for piece in bytes.chunks(cut) {
                split.extend(pieces.client(piece));
                if split.last() == Some(&Client::Close) && pieces.from_client.broken {
                    break;
                }
            }
            prop_assert_eq!(&at_once, &split);
            for action in at_once {
                if let Client::Forward(frame) = action {
                    prop_assert!(matches!(frame[4], REQUEST_IDENTITIES | SIGN_REQUEST));
                }
            }
        }
    }
}

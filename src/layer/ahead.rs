//! Reads a stream on a thread of its own, a few buffers ahead of who needs it.
//!
//! In: a reader. Out: the same bytes and errors, in the same order. Invariants: at most [`BUFFERS`] buffers exist; a stream
//! that fits in one of them starts no thread; the thread has ended, and so reads no more, when [`read_ahead`] returns.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

/// Small enough for all of them to stay in a processor's cache on their way from one thread to the other.
const BUFFER: usize = 128 << 10;
/// How many buffers there are.
const BUFFERS: usize = 6;

/// Bytes that were read and, with the last of them, how the stream ended.
#[derive(Debug)]
struct Piece {
    bytes: Vec<u8>,
    end: Option<io::Result<()>>,
}

/// Calls `work` with a reader of what `input` holds.
///
/// # Errors
///
/// Only if the thread cannot be started; what reading says comes out of the reader.
pub(crate) fn read_ahead<T>(mut input: impl Read + Send, work: impl FnOnce(&mut dyn Read) -> T) -> io::Result<T> {
    let first = fill(&mut input, vec![0; BUFFER]);
    if first.end.is_some() {
        return Ok(work(&mut Ahead { piece: first, at: 0, more: None }));
    }
    let (filled, queue) = sync_channel(BUFFERS);
    let (empty, emptied) = channel();
    (1..BUFFERS).try_for_each(|_| empty.send(Vec::new())).map_err(io::Error::other)?;
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("read-ahead".into());
        thread.spawn_scoped(scope, move || serve(input, &filled, &emptied))?;
        // Dropped before the thread is waited for, which ends it if it is still at work.
        Ok(work(&mut Ahead { piece: first, at: 0, more: Some((queue, empty)) }))
    })
}

/// Fills buffers until the stream ends or nobody wants any more.
fn serve(mut input: impl Read, filled: &SyncSender<Piece>, emptied: &Receiver<Vec<u8>>) {
    for mut buffer in emptied {
        buffer.resize(BUFFER, 0);
        let piece = fill(&mut input, buffer);
        let last = piece.end.is_some();
        if filled.send(piece).is_err() || last {
            return;
        }
    }
}

/// Reads until the buffer is full or the stream ends.
fn fill(input: &mut impl Read, mut bytes: Vec<u8>) -> Piece {
    let mut length = 0;
    let mut end = None;
    while length < bytes.len() && end.is_none() {
        match input.read(&mut bytes[length..]) {
            Ok(0) => end = Some(Ok(())),
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => end = Some(Err(error)),
        }
    }
    bytes.truncate(length);
    Piece { bytes, end }
}

/// The reading end.
struct Ahead {
    piece: Piece,
    at: usize,
    /// Where pieces come from and where their buffers go back to; none if the first piece is all.
    more: Option<(Receiver<Piece>, Sender<Vec<u8>>)>,
}

impl Ahead {
    /// Takes the next piece; returns whether there was one.
    fn next(&mut self) -> io::Result<bool> {
        if let Some(end) = self.piece.end.replace(Ok(())) {
            return end.map(|()| false);
        }
        let Some((queue, empty)) = &self.more else { return Ok(false) };
        let next = queue.recv().map_err(|_| io::Error::other("the thread that reads ended"))?;
        let used = std::mem::replace(&mut self.piece, next);
        self.at = 0;
        // The thread may have ended; then the buffer is not needed.
        let _ = empty.send(used.bytes);
        Ok(true)
    }
}

impl Read for Ahead {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.bytes.len() {
            if !self.next()? {
                return Ok(0);
            }
        }
        let count = into.len().min(self.piece.bytes.len() - self.at);
        into[..count].copy_from_slice(&self.piece.bytes[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives bytes in uneven pieces, then an error.
    struct Breaking {
        left: usize,
        breaks: bool,
    }

    impl Read for Breaking {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.left == 0 && self.breaks {
                return Err(io::Error::other("broken"));
            }
            let count = buffer.len().min(self.left).min(10_007);
            buffer[..count].iter_mut().zip(0..).for_each(|(byte, at)| *byte = ((self.left - at) % 251) as u8);
            self.left -= count;
            Ok(count)
        }
    }

    fn expected(length: usize) -> Vec<u8> {
        (0..length).map(|at| ((length - at) % 251) as u8).collect()
    }

    #[test]
    fn gives_the_same_bytes_and_the_same_end() {
        for length in [0, 1, BUFFER - 1, BUFFER, BUFFER + 1, BUFFER * BUFFERS, BUFFER * 20 + 77] {
            let mut found = Vec::new();
            let read = |input: &mut dyn Read| input.read_to_end(&mut found);
            read_ahead(Breaking { left: length, breaks: false }, read).expect("thread").expect("read");
            assert!(found == expected(length), "{length}");
        }
    }

    #[test]
    fn gives_an_error_after_all_that_came_before_it() {
        for length in [0, 5, BUFFER, BUFFER * 9 + 1] {
            let mut found = Vec::new();
            let read = |input: &mut dyn Read| input.read_to_end(&mut found);
            let error = read_ahead(Breaking { left: length, breaks: true }, read).expect("thread").expect_err("broken");
            assert_eq!(error.to_string(), "broken");
            assert!(found == expected(length), "{length}");
        }
    }

    #[test]
    fn who_stops_early_ends_the_thread() {
        let endless = io::repeat(7);
        let first = read_ahead(endless, |input| {
            let mut byte = [0];
            input.read_exact(&mut byte).map(|()| byte[0])
        });
        assert_eq!(first.expect("thread").expect("read"), 7);
    }
}

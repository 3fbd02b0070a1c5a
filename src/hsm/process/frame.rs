//! Frames: a length of four bytes, then that many bytes, and how values stand in them.
//!
//! Numbers are little-endian. Plaintexts pass through here, so every buffer is zeroized when it is
//! dropped, and none that holds one grows: a reallocation would leave a copy behind.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

/// Longest frame: a million object handles of eight bytes, and some room.
const LONGEST: usize = 16 << 20;

/// Most frames fit in here, and are read with one system call.
const USUAL: usize = 2048;

/// Size of the length before a frame.
pub(super) const LENGTH: usize = 4;

/// What was received cannot be understood. Between two halves of one program that is a defect, or
/// a process whose memory the HSM library has damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message that cannot be understood")]
pub(super) struct Malformed;

/// Writes a frame.
pub(super) struct Writer(Zeroizing<Vec<u8>>, #[cfg(test)] usize);

impl Writer {
    /// A frame that will hold this many bytes. One that holds a secret must not get longer.
    pub(super) fn with_room(room: usize) -> Self {
        let mut bytes = Vec::with_capacity(LENGTH + room);
        bytes.extend([0; LENGTH]);
        #[cfg(test)]
        let room = bytes.capacity();
        Self(
            Zeroizing::new(bytes),
            #[cfg(test)]
            room,
        )
    }

    pub(super) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(super) fn flag(&mut self, value: bool) {
        self.u8(value.into());
    }

    pub(super) fn u16(&mut self, value: u16) {
        self.array(&value.to_le_bytes());
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.array(&value.to_le_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.array(&value.to_le_bytes());
    }

    /// A count of what follows.
    pub(super) fn count(&mut self, count: usize) {
        self.u32(u32::try_from(count).unwrap_or(u32::MAX));
    }

    /// Bytes of a length that the reader knows.
    pub(super) fn array(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Bytes of any length.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.array(bytes);
    }

    /// Sends the frame.
    pub(super) fn send(mut self, mut stream: &UnixStream) -> io::Result<()> {
        let length = self.0.len() - LENGTH;
        if length > LONGEST {
            return Err(io::Error::new(ErrorKind::InvalidInput, "the message is too long"));
        }
        let length = u32::try_from(length).expect("it was just compared");
        self.0[..LENGTH].copy_from_slice(&length.to_le_bytes());
        stream.write_all(&self.0)
    }

    /// Whether it never outgrew this room.
    #[cfg(test)]
    pub(super) fn fits(&self) -> bool {
        self.0.capacity() == self.1
    }

    /// What the frame holds.
    #[cfg(test)]
    pub(super) fn content(&self) -> &[u8] {
        &self.0[LENGTH..]
    }
}

/// Reads the content of a frame.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(content: &'a [u8]) -> Self {
        Self(content)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn flag(&mut self) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed),
        }
    }

    pub(super) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    /// A count of what follows, each of at least `least` bytes: nothing is allocated for more than
    /// the frame can hold.
    pub(super) fn count(&mut self, least: usize) -> Result<usize, Malformed> {
        let count = usize::try_from(self.u32()?).map_err(|_| Malformed)?;
        match count.checked_mul(least) {
            Some(bytes) if bytes <= self.0.len() => Ok(count),
            _ => Err(Malformed),
        }
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.count(1)?;
        self.take(length)
    }

    pub(super) fn text(&mut self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed)
    }

    /// Nothing may be left over.
    pub(super) fn end(&self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed) }
    }
}

/// Receives one frame and gives its content; `None` where the other side has left.
///
/// Each side sends one frame and then waits for one, so there is never a second one behind it.
/// `limit` bounds the time for the whole frame; the stream's own timeout, which must be set to the
/// same, bounds each read.
pub(super) fn receive(
    stream: &UnixStream,
    limit: Option<Duration>,
) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    receive_into(vec![0; USUAL], stream, limit)
}

/// The same where something else may follow, of which nothing is read.
pub(super) fn receive_exactly(stream: &UnixStream) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    receive_into(vec![0; LENGTH], stream, None)
}

/// Reads no more than the buffer holds, or the frame if that is longer.
fn receive_into(
    buffer: Vec<u8>,
    mut stream: &UnixStream,
    limit: Option<Duration>,
) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    let start = Instant::now();
    let malformed = || io::Error::new(ErrorKind::InvalidData, Malformed);
    let mut buffer = Zeroizing::new(buffer);
    let mut filled = 0;
    loop {
        let whole = match buffer.first_chunk::<LENGTH>() {
            Some(length) if filled >= LENGTH => {
                let length = usize::try_from(u32::from_le_bytes(*length));
                let length = length.ok().filter(|length| *length <= LONGEST);
                LENGTH + length.ok_or_else(malformed)?
            }
            _ => LENGTH,
        };
        if filled >= LENGTH && filled == whole {
            buffer.truncate(whole);
            return Ok(Some(buffer));
        }
        if filled > whole {
            return Err(malformed());
        }
        if whole > buffer.len() {
            let mut longer = Zeroizing::new(vec![0; whole]);
            longer[..filled].copy_from_slice(&buffer[..filled]);
            buffer = longer;
        }
        match stream.read(&mut buffer[filled..]) {
            Ok(0) if filled == 0 => return Ok(None),
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => filled += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if limit.is_some_and(|limit| start.elapsed() > limit) {
            return Err(ErrorKind::TimedOut.into());
        }
    }
}

/// The content of a frame as [`receive`] gave it.
pub(super) fn content(frame: &[u8]) -> Reader<'_> {
    Reader::new(frame.get(LENGTH..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(frames: &[u8]) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        let (here, mut there) = UnixStream::pair().expect("the system gives sockets");
        let bytes = frames.to_vec();
        let sender = std::thread::spawn(move || there.write_all(&bytes));
        let received = receive(&here, None);
        drop(here);
        // Where it was refused, not all of it need be read.
        let _ = sender.join().expect("it does not panic");
        received
    }

    #[test]
    fn frames_of_any_length_arrive_whole() {
        for length in [0, 1, USUAL - LENGTH, USUAL, 300_000] {
            let (here, there) = UnixStream::pair().expect("the system gives sockets");
            let sent = vec![7; length];
            let mut writer = Writer::with_room(length);
            writer.array(&sent);
            let sender = std::thread::spawn(move || writer.send(&there));
            let frame = receive(&here, None).expect("it arrives").expect("it is there");
            assert_eq!(frame[LENGTH..], sent);
            sender.join().expect("it does not panic").expect("it is sent");
            assert!(receive(&here, None).expect("the end is no error").is_none());
        }
    }

    #[test]
    fn what_follows_is_left_for_others() {
        let (here, mut there) = UnixStream::pair().expect("the system gives sockets");
        there.write_all(&[2, 0, 0, 0, 8, 9, 7]).expect("there is room");
        let frame = receive_exactly(&here).expect("it arrives").expect("it is there");
        assert_eq!(frame[LENGTH..], [8, 9]);
        let mut rest = [0];
        (&here).read_exact(&mut rest).expect("it is still there");
        assert_eq!(rest, [7]);
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let kind = |bytes: &[u8]| through(bytes).expect_err("it is no frame").kind();
        assert_eq!(kind(&[0xff; 8]), ErrorKind::InvalidData, "too long");
        assert_eq!(kind(&[1, 0, 0, 0, 9, 9]), ErrorKind::InvalidData, "more than a frame");
        assert_eq!(kind(&[2, 0, 0, 0, 9]), ErrorKind::UnexpectedEof, "half a frame");
        assert_eq!(kind(&[2, 0]), ErrorKind::UnexpectedEof, "half a length");
    }

    #[test]
    fn counts_beyond_the_frame_are_refused() {
        let mut reader = Reader::new(&[0xff, 0xff, 0xff, 0x7f, 1, 2]);
        assert_eq!(reader.bytes(), Err(Malformed));
        let mut reader = Reader::new(&[2, 0, 0, 0, 1, 2]);
        assert_eq!(reader.bytes(), Ok(&[1, 2][..]));
        assert_eq!(reader.end(), Ok(()));
        assert_eq!(reader.u8(), Err(Malformed));
        assert_eq!(Reader::new(&[2]).flag(), Err(Malformed));
    }

    #[test]
    fn who_says_nothing_is_not_waited_for() {
        let (here, _there) = UnixStream::pair().expect("the system gives sockets");
        let limit = Duration::from_millis(10);
        here.set_read_timeout(Some(limit)).expect("it is not zero");
        let error = receive(&here, Some(limit)).expect_err("nothing comes");
        assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
    }
}

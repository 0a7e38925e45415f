//! What the waiting process is told before it becomes the command.
//!
//! The line is the process's stdin, because that is the one file that can be handed over safely.
//! So the real stdin comes over the line, with the first byte. After it come our number, how many
//! words the command has, the length of the rest, and the rest: the words of the command and then
//! `NAME=VALUE`, each ended by a zero byte.

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use std::{
    ffi::OsString,
    io::{self, IoSlice, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{
            ffi::{OsStrExt, OsStringExt},
            net::UnixStream,
        },
    },
    process,
};

/// The cue, as it arrives.
#[derive(Debug)]
pub(super) struct Go {
    pub(super) stdin: OwnedFd,
    /// The process that gave it.
    pub(super) parent: u32,
    /// What to become, and its arguments.
    pub(super) words: Vec<OsString>,
    pub(super) env: Vec<(OsString, OsString)>,
}

pub(super) fn say_go(
    line: &UnixStream,
    words: &[OsString],
    env: &[(&str, OsString)],
) -> io::Result<()> {
    let stdin = io::stdin();
    let files = [stdin.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut with = SendAncillaryBuffer::new(&mut space);
    let fits = with.push(SendAncillaryMessage::ScmRights(&files));
    debug_assert!(fits, "the space was made for it");
    rustix::io::retry_on_intr(|| {
        sendmsg(line, &[IoSlice::new(b"g")], &mut with, SendFlags::empty())
    })?;
    let mut rest = Vec::new();
    for word in words {
        rest.extend_from_slice(word.as_bytes());
        rest.push(0);
    }
    for (name, value) in env {
        rest.extend_from_slice(name.as_bytes());
        rest.push(b'=');
        rest.extend_from_slice(value.as_bytes());
        rest.push(0);
    }
    let size = |size| u32::try_from(size).map_err(io::Error::other);
    let mut message = Vec::with_capacity(12 + rest.len());
    message.extend(process::id().to_le_bytes());
    message.extend(size(words.len())?.to_le_bytes());
    message.extend(size(rest.len())?.to_le_bytes());
    message.extend(rest);
    (&*line).write_all(&message)
}

/// Waits for the cue. An error if whoever could give it is gone.
pub(super) fn hear_go(mut line: &UnixStream) -> io::Result<Go> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut with = RecvAncillaryBuffer::new(&mut space);
    rustix::io::retry_on_intr(|| {
        recvmsg(line, &mut [IoSliceMut::new(&mut byte)], &mut with, RecvFlags::empty())
    })?;
    let files = with.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => Some(files),
        _ => None,
    });
    let stdin = files.flatten().next().ok_or(io::ErrorKind::UnexpectedEof)?;
    let mut number = || {
        let mut bytes = [0; 4];
        line.read_exact(&mut bytes).map(|()| u32::from_le_bytes(bytes))
    };
    let (parent, count, length) = (number()?, number()?, number()?);
    let mut rest = vec![0; length as usize];
    line.read_exact(&mut rest)?;
    let owned = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
    let mut entries = rest.split(|&byte| byte == 0);
    let words = entries.by_ref().take(count as usize).map(owned).collect();
    // What follows the last zero is nothing.
    let env = entries.filter_map(|entry| {
        let at = entry.iter().position(|&byte| byte == b'=')?;
        Some((owned(&entry[..at]), owned(&entry[at + 1..])))
    });
    Ok(Go { stdin, parent, words, env: env.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{ffi::OsStr, thread};

    #[test]
    fn a_cue_arrives_as_it_was_given() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let odd = OsStr::from_bytes(b"a=b\xff\nc").to_owned();
        let words = ["tool".into(), OsString::new(), odd.clone(), "A=B".into()];
        let env = [("ODD", odd.clone()), ("LONG", "x".repeat(1 << 20).into())];
        // More than the line can hold, so somebody must read meanwhile.
        let heard = thread::spawn(move || hear_go(&theirs).unwrap());
        say_go(&ours, &words, &env).unwrap();
        let go = heard.join().unwrap();
        assert_eq!(go.parent, process::id());
        assert_eq!(go.words, words);
        assert_eq!(go.env[0], ("ODD".into(), odd));
        assert_eq!(go.env[1].1.len(), 1 << 20);
    }

    #[test]
    fn half_a_cue_is_none() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(ours);
        assert!(hear_go(&theirs).is_err());
        let (ours, theirs) = UnixStream::pair().unwrap();
        (&ours).write_all(b"g").unwrap();
        drop(ours);
        assert!(hear_go(&theirs).is_err(), "without a file");
    }
}

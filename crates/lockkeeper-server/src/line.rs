//! Cuts what a client sends into lines, whatever the pieces it comes in.

/// What was found.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Piece<'a> {
    /// A whole line, without its end.
    Line(&'a [u8]),
    /// A line is longer than allowed. The rest of it is dropped; this is said once.
    TooLong,
}

/// Keeps at most one line.
#[derive(Debug)]
pub(crate) struct Lines {
    max: usize,
    /// The beginning of a line whose end is still to come.
    begun: Vec<u8>,
    /// Whether the line at hand was too long already.
    is_dropping: bool,
}

/// What the buffer keeps when it is empty again.
const ROOMY: usize = 64 * 1024;

impl Lines {
    pub(crate) fn new(max: usize) -> Lines {
        Lines { max, begun: Vec::new(), is_dropping: false }
    }

    /// Takes the next bytes, and hands over what is whole.
    pub(crate) fn take(&mut self, mut bytes: &[u8], mut found: impl FnMut(Piece<'_>)) {
        // Most of what is long has no end in it, and that is found out fast.
        while bytes.contains(&b'\n')
            && let Some(end) = bytes.iter().position(|&byte| byte == b'\n')
        {
            let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
            bytes = rest;
            if self.is_dropping {
                self.is_dropping = false;
            } else if self.begun.len() + line.len() > self.max {
                self.begun.clear();
                found(Piece::TooLong);
            } else if self.begun.is_empty() {
                found(Piece::Line(line));
            } else {
                self.begun.extend_from_slice(line);
                found(Piece::Line(&self.begun));
                self.begun.clear();
            }
            if self.begun.is_empty() && self.begun.capacity() > ROOMY {
                self.begun = Vec::new();
            }
        }
        if self.is_dropping {
            return;
        }
        if self.begun.len() + bytes.len() > self.max {
            self.is_dropping = true;
            self.begun = Vec::new();
            found(Piece::TooLong);
        } else {
            self.begun.extend_from_slice(bytes);
        }
    }

    /// There is no more: the last line may have come without its end.
    pub(crate) fn end(&mut self, mut found: impl FnMut(Piece<'_>)) {
        if !self.begun.is_empty() {
            found(Piece::Line(&self.begun));
            self.begun.clear();
        }
    }

    /// Bytes it keeps.
    #[cfg(test)]
    fn kept(&self) -> usize {
        self.begun.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAX: usize = 16;

    fn cut(lines: &mut Lines, pieces: &[&[u8]]) -> Vec<Result<Vec<u8>, ()>> {
        let mut found = Vec::new();
        let mut note = |piece: Piece<'_>| {
            found.push(match piece {
                Piece::Line(line) => Ok(line.to_owned()),
                Piece::TooLong => Err(()),
            });
        };
        for piece in pieces {
            lines.take(piece, &mut note);
        }
        lines.end(&mut note);
        found
    }

    /// What must come out, however the bytes were cut.
    fn plainly(bytes: &[u8]) -> Vec<Result<Vec<u8>, ()>> {
        let mut lines: Vec<&[u8]> = bytes.split(|&byte| byte == b'\n').collect();
        if lines.last().is_some_and(|last| last.is_empty()) {
            lines.pop();
        }
        let judge = |line: &[u8]| if line.len() > MAX { Err(()) } else { Ok(line.to_owned()) };
        lines.into_iter().map(judge).collect()
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_the_bytes_are_cut(
            pieces in prop::collection::vec(
                prop::collection::vec(prop_oneof![Just(b'\n'), Just(b'{'), any::<u8>()], 0..40),
                0..12,
            ),
        ) {
            let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            let found = cut(&mut Lines::new(MAX), &pieces);
            prop_assert_eq!(found, plainly(&pieces.concat()));
        }
    }

    #[test]
    fn a_line_without_an_end_costs_no_more_than_the_limit() {
        let mut lines = Lines::new(1 << 16);
        let mut said = 0;
        for _ in 0..100_000 {
            lines.take(&[b'x'; 4096], |piece| {
                assert_eq!(piece, Piece::TooLong);
                said += 1;
            });
            assert!(lines.kept() <= 1 << 17);
        }
        assert_eq!(said, 1);
        let mut found = Vec::new();
        lines.take(b"x\nnext\n", |piece| {
            if let Piece::Line(line) = piece {
                found.push(line.to_owned());
            }
        });
        assert_eq!(found, [b"next".to_vec()]);
    }
}

//! Opening inputs: files and standard input, plain or compressed.

use std::{
    error::Error,
    fmt,
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    iter,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context, Result};
use bzip2::bufread::MultiBzDecoder;
use flate2::bufread::GzDecoder;
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use crate::exit::{NotFound, UsageError};

/// An input that the command line names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Input {
    /// `-`
    Stdin,
    /// A path.
    File(PathBuf),
}

/// An open input whose uncompressed bytes can be read.
pub(crate) struct Source {
    stream: Box<dyn Read + Send>,
    /// The file, if it can be read again.
    file: Option<File>,
    compression: Compression,
    /// Lines end with a carriage return alone.
    has_old_ends: bool,
    meter: Arc<AtomicU64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compression {
    None,
    Gzip,
    Zstd,
    Bzip2,
}

impl Input {
    /// Reads an argument of the command line.
    pub(crate) fn new(argument: &Path) -> Self {
        if argument == Path::new("-") { Self::Stdin } else { Self::File(argument.to_owned()) }
    }

    /// Returns the name of the input in reports.
    pub(crate) fn name(&self) -> Arc<str> {
        match self {
            Self::Stdin => "standard input".into(),
            Self::File(path) => path.to_string_lossy().into(),
        }
    }

    /// Checks that the input can be read, and returns its size where that is known.
    ///
    /// # Errors
    /// [`NotFound`] when there is no such file; else the error of the system.
    pub(crate) fn check(&self) -> Result<Option<u64>> {
        let Self::File(path) = self else { return Ok(None) };
        let metadata = path.metadata().map_err(|error| cannot_read(path, error))?;
        if metadata.is_dir() {
            return Err(UsageError::new(format!("cannot read `{}`: it is a folder", path.display())).into());
        }
        if !metadata.is_file() {
            // Opening a pipe and closing it again would end its writer.
            return Ok(None);
        }
        File::open(path).map_err(|error| cannot_read(path, error))?;
        Ok(Some(metadata.len()))
    }

    /// Opens the input. `meter` counts the bytes read from the disk, before decompression.
    ///
    /// # Errors
    /// The input cannot be read, or is compressed in an unknown way.
    pub(crate) fn open(&self, meter: &Arc<AtomicU64>) -> Result<Source> {
        let meter = Arc::clone(meter);
        match self {
            Self::Stdin => Source::new(Box::new(io::stdin()), None, meter),
            Self::File(path) => {
                let file = File::open(path).map_err(|error| cannot_read(path, error))?;
                let is_file = file.metadata().is_ok_and(|metadata| metadata.is_file());
                let twin = if is_file { Some(file.try_clone()?) } else { None };
                Source::new(Box::new(file), twin, meter)
            }
        }
        .with_context(|| format!("cannot read `{}`", self.name()))
    }
}

/// Returns the error for a file that cannot be opened.
pub(crate) fn cannot_read(path: &Path, error: io::Error) -> anyhow::Error {
    let text = format!("cannot read `{}`: {error}", path.display());
    if error.kind() == io::ErrorKind::NotFound {
        NotFound::new(text).into()
    } else {
        anyhow::Error::msg(text)
    }
}

impl Source {
    fn new(raw: Box<dyn Read + Send>, file: Option<File>, meter: Arc<AtomicU64>) -> Result<Self> {
        let mut raw = Metered { inner: raw, meter: Arc::clone(&meter) };
        let begin = read_begin(&mut raw)?;
        let compression = compression_of(&begin)?;
        let (first, stream): (_, Box<dyn Read + Send>) = match compression {
            Compression::None => (begin, Box::new(raw)),
            _ => {
                let mut stream = decompress(io::Cursor::new(begin).chain(raw), compression);
                (read_begin(&mut stream)?, stream)
            }
        };
        refuse_other_content(&first)?;
        let has_old_ends = has_old_line_ends(&first);
        let stream = with_line_ends(Box::new(io::Cursor::new(first).chain(stream)), has_old_ends);
        Ok(Self { stream, file, compression, has_old_ends, meter })
    }

    /// Returns whether the content is compressed.
    pub(crate) fn is_compressed(&self) -> bool {
        self.compression != Compression::None
    }

    /// Returns the file, `None` when the input cannot be read again.
    pub(crate) fn file(&self) -> Option<&File> {
        self.file.as_ref()
    }

    /// Returns up to `len` bytes at `offset` of a content that is not compressed, and leaves the source where it is.
    ///
    /// # Errors
    /// The input cannot be read, or not again.
    pub(crate) fn bytes_at(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let file = self.file.as_ref().ok_or(io::ErrorKind::NotSeekable)?;
        let mut bytes = vec![0; len];
        let mut read = 0;
        while read < len {
            match file.read_at(&mut bytes[read..], offset + read as u64)? {
                0 => break,
                more => read += more,
            }
        }
        bytes.truncate(read);
        if self.has_old_ends {
            bytes.iter_mut().filter(|byte| **byte == b'\r').for_each(|byte| *byte = b'\n');
        }
        Ok(bytes)
    }

    /// Returns whether the content still has `bytes` at `offset`. A hole may be filled. Of an archive that is taken for granted.
    ///
    /// # Errors
    /// The input cannot be read.
    pub(crate) fn still_has(&self, offset: u64, bytes: &[u8]) -> io::Result<bool> {
        if self.file.is_none() || self.is_compressed() {
            return Ok(true);
        }
        let found = self.bytes_at(offset, bytes.len())?;
        let is_alike = |(found, expected): (&u8, &u8)| found == expected || *expected == 0;
        Ok(found.len() == bytes.len() && found.iter().zip(bytes).all(is_alike))
    }

    /// Seeks to `offset` of the uncompressed content and returns the `window` bytes before it, `None` when the content
    /// is shorter.
    ///
    /// # Errors
    /// The input cannot be read, or is not seekable.
    pub(crate) fn go_to(&mut self, offset: u64, window: usize) -> io::Result<Option<Vec<u8>>> {
        let mut file = self.file.as_ref().ok_or(io::ErrorKind::NotSeekable)?.try_clone()?;
        let before = offset.saturating_sub(window as u64);
        let is_plain = self.compression == Compression::None;
        file.seek(SeekFrom::Start(if is_plain { before } else { 0 }))?;
        let stream = decompress(Metered { inner: file, meter: Arc::clone(&self.meter) }, self.compression);
        self.stream = with_line_ends(stream, self.has_old_ends);
        if !is_plain && io::copy(&mut self.stream.by_ref().take(before), &mut io::sink())? < before {
            return Ok(None);
        }
        let mut tail = Vec::new();
        self.stream.by_ref().take(offset - before).read_to_end(&mut tail)?;
        Ok((tail.len() as u64 == offset - before).then_some(tail))
    }
}

#[cfg(test)]
impl Source {
    /// Makes the next `times` reads fail.
    pub(crate) fn fail(&mut self, times: usize) {
        struct Failing(usize, Box<dyn Read + Send>);
        impl Read for Failing {
            fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
                if self.0 == 0 {
                    return self.1.read(out);
                }
                self.0 -= 1;
                Err(io::Error::other("the disk is away (injected)"))
            }
        }
        let stream = std::mem::replace(&mut self.stream, Box::new(io::empty()));
        self.stream = Box::new(Failing(times, stream));
    }
}

impl Read for Source {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.stream.read(out)
    }
}

fn decompress(raw: impl Read + Send + 'static, compression: Compression) -> Box<dyn Read + Send> {
    match compression {
        Compression::None => Box::new(raw),
        Compression::Gzip => {
            Box::new(GzipMembers { raw: Some(BufReader::with_capacity(64 << 10, raw)), decoder: None })
        }
        Compression::Zstd => {
            Box::new(ZstdFrames { raw: BufReader::with_capacity(64 << 10, raw), decoder: None })
        }
        Compression::Bzip2 => Box::new(MultiBzDecoder::new(BufReader::with_capacity(64 << 10, raw))),
    }
}

/// Decompresses the members of a gzip file, one after the other. Zeros after one are padding.
struct GzipMembers<R> {
    /// The rest, between two members.
    raw: Option<R>,
    /// Decoder of the current member.
    decoder: Option<GzDecoder<R>>,
}

impl<R: BufRead> Read for GzipMembers<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(decoder) = &mut self.decoder {
                let read = decoder.read(out)?;
                if read > 0 || out.is_empty() {
                    return Ok(read);
                }
                self.raw = self.decoder.take().map(GzDecoder::into_inner);
            }
            let Some(raw) = &mut self.raw else { return Ok(0) };
            let rest = raw.fill_buf()?;
            if rest.is_empty() {
                return Ok(0);
            }
            match rest.iter().take_while(|byte| **byte == 0).count() {
                0 => self.decoder = self.raw.take().map(GzDecoder::new),
                zeros => raw.consume(zeros),
            }
        }
    }
}

/// Decompresses the frames of a zstd file, one after the other.
struct ZstdFrames<R> {
    raw: R,
    /// Decoder of the current frame.
    decoder: Option<Box<FrameDecoder>>,
}

impl<R: BufRead> Read for ZstdFrames<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            let decoder = match &mut self.decoder {
                Some(decoder) => decoder,
                None if self.raw.fill_buf()?.is_empty() => return Ok(0),
                None => {
                    let mut decoder = Box::new(FrameDecoder::new());
                    decoder.init(&mut self.raw).map_err(zstd_error)?;
                    self.decoder.insert(decoder)
                }
            };
            while decoder.can_collect() == 0 && !decoder.is_finished() {
                decoder
                    .decode_blocks(&mut self.raw, BlockDecodingStrategy::UptoBytes(64 << 10))
                    .map_err(zstd_error)?;
            }
            let read = decoder.read(out)?;
            if read > 0 || out.is_empty() {
                return Ok(read);
            }
            let (stored, found) = (decoder.get_checksum_from_data(), decoder.get_calculated_checksum());
            if stored.is_some() && stored != found {
                return Err(damaged_zstd("a checksum is wrong"));
            }
            self.decoder = None;
        }
    }
}

fn zstd_error(error: impl Error + 'static) -> io::Error {
    let first: &(dyn Error + 'static) = &error;
    let mut causes = iter::successors(Some(first), |error: &&(dyn Error + 'static)| (*error).source());
    let is_end = |error: &io::Error| error.kind() == io::ErrorKind::UnexpectedEof;
    match causes.any(|error| error.downcast_ref().is_some_and(is_end)) {
        true => damaged_zstd("it is cut off"),
        false => damaged_zstd(error),
    }
}

fn damaged_zstd(why: impl fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the zstd data is damaged: {why}"))
}

/// Turns carriage returns into newlines, so that every position stays.
struct OldLineEnds(Box<dyn Read + Send>);

impl Read for OldLineEnds {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.0.read(out)?;
        out[..read].iter_mut().filter(|byte| **byte == b'\r').for_each(|byte| *byte = b'\n');
        Ok(read)
    }
}

fn with_line_ends(stream: Box<dyn Read + Send>, has_old_ends: bool) -> Box<dyn Read + Send> {
    if has_old_ends { Box::new(OldLineEnds(stream)) } else { stream }
}

/// Tells whether lines end with a carriage return alone, as on old Macs: a first block with newlines has others.
fn has_old_line_ends(first: &[u8]) -> bool {
    // A single one at the end may be half of `\r\n`.
    let before_last = &first[..first.len().saturating_sub(1)];
    !first.contains(&b'\n') && before_last.contains(&b'\r')
}

/// Refuses what has no lines in UTF-8, and names it.
fn refuse_other_content(first: &[u8]) -> Result<()> {
    anyhow::ensure!(
        first.get(TAR_MARK..TAR_MARK + 5) != Some(b"ustar"),
        "it is a tar archive; extract its files first: `tar -xOf FILE`"
    );
    anyhow::ensure!(
        !matches!(first, [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..]),
        "it is UTF-32; convert it first: `iconv -f UTF-32 -t UTF-8 FILE`"
    );
    let is_utf_16 = match *first {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => true,
        // Without a mark: ASCII characters with a NUL beside each.
        [a, 0, b, 0, ..] | [0, a, 0, b, ..] => a != 0 && b != 0,
        _ => false,
    };
    anyhow::ensure!(!is_utf_16, "it is UTF-16; convert it first: `iconv -f UTF-16 -t UTF-8 FILE`");
    Ok(())
}

/// Reads the first bytes that there are, at least as many as it takes to recognise a compression or an archive: a pipe may have few
/// for now.
fn read_begin(raw: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut begin = vec![0; FIRST_BLOCK];
    let mut len = 0;
    loop {
        let read = read_some(raw, &mut begin[len..])?;
        len += read;
        let some = &begin[..len];
        let may_be_packed = MAGICS.iter().any(|(start, _)| start.len() > len && start.starts_with(some));
        // The name in a tar archive ends with NUL bytes.
        let may_be_tar = len < TAR_MARK + 5 && some.contains(&0) && !some.contains(&b'\n');
        if read == 0 || !(may_be_packed || may_be_tar) {
            begin.truncate(len);
            return Ok(begin);
        }
    }
}

/// Reads once.
fn read_some(stream: &mut impl Read, out: &mut [u8]) -> io::Result<usize> {
    loop {
        match stream.read(out) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

/// Bytes that line ends are recognised by.
const FIRST_BLOCK: usize = 64 << 10;

/// Position of `ustar` in a tar archive.
const TAR_MARK: usize = 257;

/// Beginnings of compressed files: of those that can be read, and of others, which are refused with advice.
const MAGICS: [(&[u8], Result<Compression, &str>); 5] = [
    (b"\x1f\x8b", Ok(Compression::Gzip)),
    (b"\x28\xb5\x2f\xfd", Ok(Compression::Zstd)),
    (b"BZh", Ok(Compression::Bzip2)),
    (b"\xfd7zXZ\0", Err("it is compressed with xz; decompress it: `xzcat FILE | countem ingest -`")),
    (b"PK\x03\x04", Err("it is a zip archive; extract its files: `unzip -p FILE | countem ingest -`")),
];

fn compression_of(magic: &[u8]) -> Result<Compression> {
    let known = MAGICS.iter().find(|(start, _)| magic.starts_with(start));
    known.map_or(Ok(Compression::None), |(_, compression)| compression.map_err(anyhow::Error::msg))
}

struct Metered<R> {
    inner: R,
    meter: Arc<AtomicU64>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(out)?;
        self.meter.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression as Level, write::GzEncoder};

    use super::*;

    fn gzip(text: &str) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Level::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    fn source(bytes: &[u8]) -> Source {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        Input::File(file.path().to_owned()).open(&Arc::default()).unwrap()
    }

    #[test]
    fn plain_and_gzip_read_alike_from_any_position() {
        let plain = "first\nsecond\nthird\n".repeat(1000);
        let (one, two) = plain.split_at(7000);
        for bytes in [plain.clone().into_bytes(), [gzip(one), gzip(two)].concat()] {
            let mut source = source(&bytes);
            let mut text = String::new();
            source.read_to_string(&mut text).unwrap();
            assert_eq!(text, plain);
            for offset in [0, 1, 6999, 7000, 12_000, plain.len()] {
                let tail = source.go_to(offset as u64, 100).unwrap().unwrap();
                assert_eq!(tail, plain.as_bytes()[offset.saturating_sub(100)..offset]);
                text.clear();
                source.read_to_string(&mut text).unwrap();
                assert_eq!(text, plain[offset..]);
            }
            assert_eq!(source.go_to(plain.len() as u64 + 1, 100).unwrap(), None);
        }
    }

    #[test]
    fn short_and_empty_files_are_plain() {
        for bytes in ["", "a", "\n", "\x1f"] {
            let mut text = String::new();
            let mut source = source(bytes.as_bytes());
            source.read_to_string(&mut text).unwrap();
            assert_eq!((text.as_str(), source.is_compressed()), (bytes, false));
        }
    }

    #[test]
    fn unknown_compression_is_refused() {
        assert!(compression_of(b"\xfd7zXZ\0").unwrap_err().to_string().contains("xzcat"));
        let missing = Input::File("/nonexistent/log".into());
        assert!(missing.check().unwrap_err().is::<NotFound>());
        assert!(Input::File("/".into()).check().unwrap_err().is::<UsageError>());
    }
}

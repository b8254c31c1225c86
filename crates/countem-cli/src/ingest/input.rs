//! Opening inputs: files and standard input, plain or gzip.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context, Result};
use flate2::bufread::MultiGzDecoder;

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
    meter: Arc<AtomicU64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compression {
    None,
    Gzip,
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
        let mut magic = Vec::new();
        raw.by_ref().take(MAX_MAGIC).read_to_end(&mut magic)?;
        let compression = compression_of(&magic)?;
        let whole = io::Cursor::new(magic).chain(raw);
        Ok(Self { stream: decompress(whole, compression), file, compression, meter })
    }

    /// Returns whether the content is compressed.
    pub(crate) fn is_compressed(&self) -> bool {
        self.compression != Compression::None
    }

    /// Returns the file, `None` when the input cannot be read again.
    pub(crate) fn file(&self) -> Option<&File> {
        self.file.as_ref()
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
        self.stream = decompress(Metered { inner: file, meter: Arc::clone(&self.meter) }, self.compression);
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
        Compression::Gzip => Box::new(MultiGzDecoder::new(BufReader::with_capacity(64 << 10, raw))),
    }
}

const MAX_MAGIC: u64 = 6;

fn compression_of(magic: &[u8]) -> Result<Compression> {
    const FOREIGN: [(&[u8], &str); 3] =
        [(b"\x28\xb5\x2f\xfd", "zstd"), (b"\xfd7zXZ\0", "xz"), (b"BZh91A", "bzip2")];
    if let Some((_, name)) = FOREIGN.iter().find(|(start, _)| magic.starts_with(start)) {
        anyhow::bail!("it is compressed with {name}; decompress it into `countem ingest -`");
    }
    Ok(if magic.starts_with(b"\x1f\x8b") { Compression::Gzip } else { Compression::None })
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
        assert!(compression_of(b"\x28\xb5\x2f\xfd..").unwrap_err().to_string().contains("zstd"));
        let missing = Input::File("/nonexistent/log".into());
        assert!(missing.check().unwrap_err().is::<NotFound>());
        assert!(Input::File("/".into()).check().unwrap_err().is::<UsageError>());
    }
}

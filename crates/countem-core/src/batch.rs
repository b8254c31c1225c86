//! Batches: deltas that travel together under one identity.

use std::{fmt, str::FromStr, sync::Arc};

use crate::{Bucket, CollectionName, Delta, Deltas, MetricName, Period, Totals, delta::Entry};

/// Identifies one incarnation of one node: `<node>-<epoch>-<incarnation>`.
///
/// The node is random and fixed for a data directory (or for a process without one), the epoch rises at every start, and
/// the incarnation is drawn at random at every start: an identity never comes back, also when a data directory is copied or
/// restored. No wall clock takes part, so setting a clock back cannot make two batches look alike.
///
/// `<node>-<epoch>` is the form of processes without a data directory, and of older data directories.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Writer(Arc<str>);

/// An error: the text is not a writer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a writer; expected 16 hexadecimal digits, a dash and a decimal number, and perhaps a dash and 8 hexadecimal digits"
)]
pub struct WriterError {
    text: String,
}

impl Writer {
    /// Names start `epoch` of the node with the random identity `node`, which is new or has no data directory.
    pub fn new(node: u64, epoch: u64) -> Self {
        Self(format!("{node:016x}-{epoch}").into())
    }

    /// Names start `epoch` of the node with the random identity `node`; `incarnation` was drawn at this start.
    pub fn incarnation(node: u64, epoch: u64, incarnation: u32) -> Self {
        Self(format!("{node:016x}-{epoch}-{incarnation:08x}").into())
    }

    /// Returns the text form: letters, digits and dashes only.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the identity of the node.
    pub fn node(&self) -> u64 {
        u64::from_str_radix(&self.0[..16], 16).expect("a writer begins with 16 hexadecimal digits")
    }

    /// Returns what was drawn at random at this start, in the form that has it.
    pub fn drawn(&self) -> Option<u32> {
        let (_, drawn) = self.0[17..].split_once('-')?;
        Some(u32::from_str_radix(drawn, 16).expect("a writer ends with hexadecimal digits"))
    }

    /// Returns the number of the start.
    pub fn epoch(&self) -> u64 {
        let after_node = &self.0[17..];
        let epoch = after_node.split_once('-').map_or(after_node, |(epoch, _)| epoch);
        epoch.parse().expect("a decimal number follows the node")
    }
}

impl FromStr for Writer {
    type Err = WriterError;

    fn from_str(text: &str) -> Result<Self, WriterError> {
        let parsed = text.split_once('-').and_then(|(node, rest)| {
            let node = u64::from_str_radix(node, 16).ok()?;
            let writer = match rest.split_once('-') {
                None => Self::new(node, rest.parse().ok()?),
                Some((epoch, drawn)) => {
                    Self::incarnation(node, epoch.parse().ok()?, u32::from_str_radix(drawn, 16).ok()?)
                }
            };
            (writer.as_str() == text).then_some(writer)
        });
        parsed.ok_or_else(|| WriterError { text: text.to_owned() })
    }
}

impl fmt::Display for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Identity of a batch. Within one (writer, lane) `seq` rises by one per batch and starts at 1.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId {
    /// The incarnation that counted.
    pub writer: Writer,
    /// The lane of the writer that sends it. Two lanes never touch the same collection.
    pub lane: u16,
    /// Position of the batch in the lane.
    pub seq: u64,
}

impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.writer, self.lane, self.seq)
    }
}

/// An error: the text is not the identity of a batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a batch; expected a writer, a lane and a number, with slashes between them")]
pub struct BatchIdError {
    text: String,
}

impl FromStr for BatchId {
    type Err = BatchIdError;

    fn from_str(text: &str) -> Result<Self, BatchIdError> {
        let mut parts = text.split('/');
        let mut read = || {
            let (writer, lane) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
            let id = Self { writer, lane, seq: parts.next()?.parse().ok()? };
            (id.to_string() == text).then_some(id)
        };
        read().ok_or_else(|| BatchIdError { text: text.to_owned() })
    }
}

/// A fact that becomes true together with the counts of a batch, such as how far a file was read.
///
/// It moves by compare-and-set: a store adds the batch only while the mark is at `expected`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Subject of the fact.
    pub key: String,
    /// The fact before; `None` when there is no mark.
    pub expected: Option<String>,
    /// The fact after; `None` removes the mark.
    pub value: Option<String>,
}

/// Deltas that travel together under one identity, ordered by collection, bucket and metric.
///
/// Immutable and not `Clone` (I7): the same identity always means the same content, so a store may recognise a batch by
/// its identity alone. Dropping an unresolved batch loses counts.
#[derive(Debug)]
#[must_use = "a batch that is dropped unresolved is a batch that is lost"]
pub struct Batch {
    id: BatchId,
    deltas: Deltas,
    mark: Option<Mark>,
    is_journaled: bool,
    is_decoded: bool,
}

impl Batch {
    /// Freezes `deltas` under `id`.
    pub fn new(id: BatchId, mut deltas: Deltas) -> Self {
        deltas.sort();
        Self { id, deltas, mark: None, is_journaled: false, is_decoded: false }
    }

    /// Declares that a journal keeps the deltas of this batch that the store quarantines.
    pub fn journaled(self) -> Self {
        Self { is_journaled: true, ..self }
    }

    /// Returns true when a journal keeps the deltas that the store quarantines; the store must not, as each could be retried.
    pub fn is_journaled(&self) -> bool {
        self.is_journaled
    }

    /// Returns true if the batch was decoded from bytes: their origin, a journal or another node, may have sent it before.
    pub fn is_decoded(&self) -> bool {
        self.is_decoded
    }

    /// Freezes `deltas` under `id` together with a mark that moves if and only if they are applied.
    pub fn with_mark(id: BatchId, deltas: Deltas, mark: Mark) -> Self {
        Self { mark: Some(mark), ..Self::new(id, deltas) }
    }

    /// Returns the identity.
    pub fn id(&self) -> &BatchId {
        &self.id
    }

    /// Lists the deltas ordered by collection, bucket and metric.
    pub fn deltas(&self) -> impl ExactSizeIterator<Item = Delta<'_>> + Clone {
        self.deltas.iter()
    }

    /// Lists the deltas in groups of one collection and bucket, in the order of [`deltas`](Self::deltas).
    pub fn groups(&self) -> impl Iterator<Item = Group<'_>> + Clone {
        let names = self.deltas.names.as_str();
        let same =
            move |a: &Entry, b: &Entry| a.bucket == b.bucket && a.collection(names) == b.collection(names);
        self.deltas.entries.chunk_by(same).map(move |entries| Group { entries, names })
    }

    /// Returns the mark that moves together with the deltas.
    pub fn mark(&self) -> Option<&Mark> {
        self.mark.as_ref()
    }

    /// Returns the number of deltas.
    pub fn len(&self) -> usize {
        self.deltas.len()
    }

    /// Returns true when the batch has a delta of the same counter as `delta`.
    pub fn contains(&self, delta: &Delta<'_>) -> bool {
        let key = (delta.collection, delta.bucket, delta.metric);
        let names = &self.deltas.names;
        let find = |entry: &Entry| (entry.collection(names), entry.bucket, entry.metric(names)).cmp(&key);
        self.deltas.entries.binary_search_by(find).is_ok()
    }

    /// Returns true for a batch without deltas.
    pub fn is_empty(&self) -> bool {
        self.deltas.is_empty()
    }

    /// Returns the sums over the deltas.
    pub fn totals(&self) -> Totals {
        self.deltas.totals()
    }

    /// Returns the deltas. Only for a batch that was never sent, or that is resolved.
    pub fn into_deltas(self) -> Deltas {
        self.deltas
    }

    /// Returns the frozen bytes of the batch; [`decode`](Self::decode) gives an equal batch back.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.deltas.names.len() + self.deltas.len() * 32);
        out.push(if self.mark.is_some() { WITH_MARK } else { WITHOUT_MARK });
        put_text(&mut out, self.id.writer.as_str());
        out.extend_from_slice(&self.id.lane.to_le_bytes());
        out.extend_from_slice(&self.id.seq.to_le_bytes());
        match &self.mark {
            Some(Mark { key, expected, value }) => {
                put_text(&mut out, key);
                put_optional(&mut out, expected.as_deref());
                put_optional(&mut out, value.as_deref());
            }
            // The place of a mark in an earlier format, which no journal ever held.
            None => out.extend_from_slice(&NO_MARK),
        }
        out.extend_from_slice(&(self.deltas.len() as u64).to_le_bytes());
        for delta in self.deltas.iter() {
            put_text(&mut out, delta.collection);
            put_text(&mut out, delta.metric);
            out.push(delta.bucket.period() as u8);
            put_text(&mut out, &delta.bucket.to_string());
            out.extend_from_slice(&delta.n.to_le_bytes());
            out.extend_from_slice(&delta.increments.to_le_bytes());
        }
        out
    }

    /// Decodes the bytes of [`encode`](Self::encode).
    ///
    /// # Errors
    /// [`DecodeError`]: the bytes are not a whole, valid batch.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Input { bytes, at: 0 };
        let has_mark = match input.byte()? {
            WITHOUT_MARK => false,
            WITH_MARK => true,
            _ => return Err(DecodeError { at: 0 }),
        };
        let writer = input.parse()?;
        let id = BatchId {
            writer,
            lane: u16::from_le_bytes(input.array()?),
            seq: u64::from_le_bytes(input.array()?),
        };
        let mark = if has_mark {
            let key = input.text()?.to_owned();
            Some(Mark { key, expected: input.optional()?, value: input.optional()? })
        } else if input.array()? == NO_MARK {
            None
        } else {
            return Err(input.error());
        };
        let count = u64::from_le_bytes(input.array()?);
        let mut deltas = Deltas::default();
        for _ in 0..count {
            let (collection, metric) = (input.text()?, input.text()?);
            let here = input.error();
            if CollectionName::validate(collection).is_err() || MetricName::validate(metric).is_err() {
                return Err(here);
            }
            let period = Period::from_code(input.byte()?.into());
            let bucket: Bucket = input.parse()?;
            if bucket.period() != period {
                return Err(here);
            }
            let (n, increments) = (i64::from_le_bytes(input.array()?), u64::from_le_bytes(input.array()?));
            deltas.push(Delta { collection, metric, bucket, n, increments }).ok_or(here)?;
        }
        if input.at != bytes.len() {
            return Err(input.error());
        }
        Ok(Self { id, deltas, mark, is_journaled: false, is_decoded: true })
    }
}

/// The deltas of a batch that add to one collection and bucket, ordered by metric.
#[derive(Debug, Clone, Copy)]
pub struct Group<'a> {
    /// Never empty.
    entries: &'a [Entry],
    names: &'a str,
}

impl<'a> Group<'a> {
    /// Returns the collection.
    pub fn collection(self) -> &'a str {
        self.entries[0].collection(self.names)
    }

    /// Returns the bucket.
    pub fn bucket(self) -> Bucket {
        self.entries[0].bucket
    }

    /// Lists the deltas.
    pub fn deltas(self) -> impl ExactSizeIterator<Item = Delta<'a>> + Clone {
        self.entries.iter().map(move |entry| entry.delta(self.names))
    }
}

/// An error: the bytes are not a whole, valid batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("frozen batch is damaged at byte {at}")]
pub struct DecodeError {
    at: usize,
}

/// First byte of a frozen batch without a mark.
const WITHOUT_MARK: u8 = 1;
/// First byte of a frozen batch with a mark.
const WITH_MARK: u8 = 2;
/// Bytes between identity and deltas of a batch without a mark.
const NO_MARK: [u8; 9] = [0; 9];

fn put_text(out: &mut Vec<u8>, text: &str) {
    let length = u32::try_from(text.len()).expect("names and marks are far shorter than 4 GiB");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn put_optional(out: &mut Vec<u8>, text: Option<&str>) {
    out.push(u8::from(text.is_some()));
    put_text(out, text.unwrap_or_default());
}

struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    fn error(&self) -> DecodeError {
        DecodeError { at: self.at }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let end = self.at.checked_add(length).ok_or(self.error())?;
        let taken = self.bytes.get(self.at..end).ok_or(self.error())?;
        self.at = end;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, DecodeError> {
        Ok(self.take(1)?[0])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let taken = self.take(N)?;
        Ok(taken.try_into().expect("exactly N bytes were taken"))
    }

    fn text(&mut self) -> Result<&'a str, DecodeError> {
        let length = u32::from_le_bytes(self.array()?) as usize;
        let here = self.error();
        std::str::from_utf8(self.take(length)?).map_err(|_| here)
    }

    fn optional(&mut self) -> Result<Option<String>, DecodeError> {
        let is_some = self.byte()? == 1;
        let text = self.text()?;
        Ok(is_some.then(|| text.to_owned()))
    }

    fn parse<T: FromStr>(&mut self) -> Result<T, DecodeError> {
        let here = self.error();
        self.text()?.parse().map_err(|_| here)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Table;

    fn batch(metrics: &[(String, i64)]) -> Batch {
        let mark = Mark { key: "file".into(), expected: None, value: Some("12".into()) };
        with(metrics, Some(mark))
    }

    fn with(metrics: &[(String, i64)], mark: Option<Mark>) -> Batch {
        let mut table = Table::new();
        for (metric, n) in metrics {
            table.fold("web", metric, "2026-11-20".parse().unwrap(), *n).unwrap();
        }
        let id = BatchId { writer: Writer::new(0xabc, 7), lane: 3, seq: 42 };
        match mark {
            Some(mark) => Batch::with_mark(id, table.drain(), mark),
            None => Batch::new(id, table.drain()),
        }
    }

    #[test]
    fn a_writer_reads_back() {
        let writer: Writer = "00000000000000ff-12".parse().unwrap();
        assert_eq!((writer.node(), writer.epoch()), (255, 12));
        let writer: Writer = "00000000000000ff-12-0000beef".parse().unwrap();
        assert_eq!((writer.node(), writer.epoch()), (255, 12));
        assert_eq!(writer, Writer::incarnation(255, 12, 0xbeef));
        assert_ne!(writer, Writer::new(255, 12));
        for bad in ["00000000000000ff-12-", "00000000000000ff-12-beef", "00000000000000ff-12-0000BEEF"] {
            assert!(bad.parse::<Writer>().is_err(), "{bad:?} was accepted");
        }
        for bad in ["", "ff-12", "00000000000000FF-12", "00000000000000ff-012", "00000000000000ff"] {
            assert!(bad.parse::<Writer>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn identity_of_a_batch_reads_back() {
        let id = BatchId { writer: Writer::incarnation(0xabc, 7, 1), lane: 3, seq: u64::MAX };
        assert_eq!(id.to_string().parse(), Ok(id.clone()));
        for bad in
            [String::new(), format!("{}/3", id.writer), format!("{id}/1"), format!("{}/03/1", id.writer)]
        {
            assert!(bad.parse::<BatchId>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn deltas_are_ordered() {
        let batch = batch(&[("b".into(), 1), ("a".into(), 1), ("c".into(), 1)]);
        assert_eq!(batch.deltas().map(|d| d.metric).collect::<Vec<_>>(), ["a", "b", "c"]);
        assert!(batch.deltas().all(|delta| batch.contains(&delta)));
        let first = batch.deltas().next().unwrap();
        assert!(!batch.contains(&Delta { metric: "d", ..first }));
    }

    #[test]
    fn frozen_batch_of_a_journal_does_not_change() {
        let mut bytes = vec![1, 18, 0, 0, 0];
        bytes.extend_from_slice(b"0000000000000abc-7");
        bytes.extend_from_slice(&[3, 0, 42, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend_from_slice(&0_u64.to_le_bytes());
        assert_eq!(with(&[], None).encode(), bytes);
    }

    proptest! {
        #[test]
        fn encoded_batch_decodes_and_truncation_is_refused(
            metrics in prop::collection::btree_map("[^\\p{Cc}]{1,20}", any::<i64>(), 0..20), cut in any::<prop::sample::Index>(),
            mark in prop::option::of((".{0,9}", prop::option::of(".{0,9}"), prop::option::of(".{0,9}"))),
        ) {
            let mark = mark.map(|(key, expected, value)| Mark { key, expected, value });
            let batch = with(&metrics.into_iter().collect::<Vec<_>>(), mark);
            let bytes = batch.encode();
            let read = Batch::decode(&bytes).unwrap();
            prop_assert_eq!(read.id(), batch.id());
            prop_assert_eq!(read.mark(), batch.mark());
            prop_assert_eq!(read.deltas().collect::<Vec<_>>(), batch.deltas().collect::<Vec<_>>());
            prop_assert_eq!(read.encode(), bytes.clone());
            prop_assert!(Batch::decode(&bytes[..cut.index(bytes.len())]).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Batch::decode(&bytes).is_err() || [WITHOUT_MARK, WITH_MARK].contains(&bytes[0]));
        }
    }
}

//! Detecting that this process was forked.

use std::process;

/// The process that an engine was started in.
///
/// A forked child has the memory of its parent, but none of its threads: nothing that is counted there is ever stored, and
/// locks held by other threads at the moment of the fork are never given back.
#[derive(Debug)]
pub(super) struct Process {
    id: u32,
    /// A page that reads as 1 in this process and as 0 in a fork of it. A system call for the process id costs ten times
    /// an increment.
    #[cfg(target_os = "linux")]
    marker: Option<memmap2::MmapMut>,
}

impl Process {
    pub(super) fn current() -> Self {
        Self {
            id: process::id(),
            #[cfg(target_os = "linux")]
            marker: marker(),
        }
    }

    /// Tells whether this is a fork of the process that the engine was started in.
    #[inline]
    pub(super) fn is_forked(&self) -> bool {
        #[cfg(target_os = "linux")]
        if let Some(marker) = &self.marker {
            return marker[0] == 0;
        }
        process::id() != self.id
    }
}

/// Returns `None` where the kernel (before 4.14) cannot wipe a page on fork.
#[cfg(target_os = "linux")]
#[expect(
    unsafe_code,
    reason = "no crate wraps this flag, and asking for the process id costs ten increments"
)]
fn marker() -> Option<memmap2::MmapMut> {
    let mut page = memmap2::MmapMut::map_anon(1).ok()?;
    let (start, len) = (page.as_mut_ptr().cast(), page.len());
    // SAFETY: the range is a private anonymous mapping that `page` owns. The advice changes what a child sees there, nothing
    // in this process, and the child only reads the page.
    if unsafe { libc::madvise(start, len, libc::MADV_WIPEONFORK) } != 0 {
        return None;
    }
    page[0] = 1;
    Some(page)
}

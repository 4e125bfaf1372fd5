//! Memory of a program that lives for a millisecond and then is another: what it takes, it takes from one piece, whose
//! pages cost nothing until they are used, and gives back only what it took last. Going to libc and the kernel for each
//! piece was a fifth of a start.

#![allow(unsafe_code)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::{Cell, UnsafeCell},
    ptr::null_mut,
    sync::atomic::{AtomicBool, Ordering},
};

use nix::libc;

/// Bytes of the one piece. A start with 20 layers takes a seventh.
const SIZE: usize = 1 << 20;
/// What most starts take, asked of the kernel at once: page by page costs twice the time.
const USUAL: usize = 128 << 10;
/// More than this at once comes from libc, which can give it back.
const LARGE: usize = 64 << 10;

/// All of it, in whole pages, and whether a thread has it: the first that asks, which has it to itself, so that nothing is locked.
#[repr(align(4096))]
pub(crate) struct Arena {
    room: UnsafeCell<[u8; SIZE]>,
    taken: AtomicBool,
}

// SAFETY: `room` is reached by the thread alone that set `taken`, but for what it handed out.
unsafe impl Sync for Arena {}

/// What this thread knows of the arena.
#[derive(Clone, Copy)]
enum Use {
    /// It has not asked.
    Unknown,
    /// It has it, and used so many bytes.
    Ours(usize),
    /// Another thread has it.
    Others,
}

thread_local! {
    // Neither made nor dropped at run time, so that it can be used by what makes memory.
    static USE: Cell<Use> = const { Cell::new(Use::Unknown) };
}

impl Arena {
    #[allow(clippy::large_stack_arrays, reason = "it becomes a static, and never lies on a stack")]
    pub(crate) const fn new() -> Self {
        Self { room: UnsafeCell::new([0; SIZE]), taken: AtomicBool::new(false) }
    }

    /// Bytes in use, where this thread has the arena.
    fn used(&self) -> Option<usize> {
        match USE.get() {
            Use::Ours(used) => Some(used),
            Use::Others => None,
            Use::Unknown => {
                let used = (!self.taken.swap(true, Ordering::Relaxed)).then_some(0);
                USE.set(used.map_or(Use::Others, Use::Ours));
                if used.is_some() {
                    self.populate();
                }
                used
            }
        }
    }

    /// Kernels before 5.14 refuse, and give the pages one by one.
    fn populate(&self) {
        // SAFETY: it changes nothing of what the pages hold.
        unsafe { libc::madvise(self.room.get().cast(), USUAL, libc::MADV_POPULATE_WRITE) };
    }

    /// Where in the arena something is.
    fn offset(&self, pointer: *mut u8) -> Option<usize> {
        pointer.addr().checked_sub(self.room.get().addr()).filter(|offset| *offset < SIZE)
    }

    /// Gives out the bytes from `start` on.
    fn give(&self, start: usize, size: usize) -> Option<*mut u8> {
        let end = start.checked_add(size).filter(|end| *end <= SIZE)?;
        USE.set(Use::Ours(end));
        Some(self.room.get().cast::<u8>().wrapping_add(start))
    }
}

// SAFETY: memory is given out once: by the thread that has the arena, beyond what is in use; what is in use becomes less
// only when the last piece is given back. All else is done by libc, each piece by the one who made it.
unsafe impl GlobalAlloc for Arena {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let ours = self.used().filter(|_| layout.size() <= LARGE && layout.align() <= 64);
        match ours.and_then(|used| self.give(used.next_multiple_of(layout.align()), layout.size())) {
            Some(pointer) => pointer,
            // SAFETY: the caller's promises are those that libc asks for.
            None => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        match self.offset(pointer) {
            // SAFETY: what does not lie in the arena came from libc.
            None => unsafe { System.dealloc(pointer, layout) },
            Some(offset) if self.used() == Some(offset + layout.size()) => USE.set(Use::Ours(offset)),
            Some(_) => {}
        }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Some(offset) = self.offset(pointer) else {
            // SAFETY: what does not lie in the arena came from libc.
            return unsafe { System.realloc(pointer, layout, size) };
        };
        let last = self.used() == Some(offset + layout.size());
        if size <= layout.size() || last && size <= LARGE {
            if !last {
                return pointer;
            }
            if let Some(pointer) = self.give(offset, size) {
                return pointer;
            }
        }
        let Ok(new) = Layout::from_size_align(size, layout.align()) else { return null_mut() };
        // SAFETY: the size is not zero, the caller says.
        let moved = unsafe { self.alloc(new) };
        if !moved.is_null() {
            // SAFETY: both are as long as what is copied, and the new one lies elsewhere.
            unsafe {
                moved.copy_from_nonoverlapping(pointer, layout.size().min(size));
                self.dealloc(pointer, layout);
            }
        }
        moved
    }
}

#[cfg(test)]
#[allow(clippy::undocumented_unsafe_blocks, reason = "the tests are of these very promises")]
mod tests {
    use super::*;

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    /// In a thread that has no arena yet.
    fn alone(test: fn()) {
        std::thread::spawn(test).join().unwrap();
    }

    #[test]
    fn pieces_are_apart_and_the_last_comes_back() {
        alone(|| {
            static ARENA: Arena = Arena::new();
            let in_use = || ARENA.used().unwrap();
            unsafe {
                let first = ARENA.alloc(layout(3, 1));
                let second = ARENA.alloc(layout(8, 8));
                assert_eq!((second.addr() % 8, second.addr() - first.addr()), (0, 8));
                first.write_bytes(1, 3);
                // It is not the last, so a longer one lies elsewhere.
                let moved = ARENA.realloc(first, layout(3, 1), 100);
                assert_eq!((moved.addr() - second.addr(), *moved.add(2)), (8, 1));
                assert_eq!(ARENA.realloc(moved, layout(100, 1), 200), moved);
                assert_eq!(ARENA.realloc(moved, layout(200, 1), 10), moved);
                assert_eq!(in_use(), 26);
                ARENA.dealloc(moved, layout(10, 1));
                ARENA.dealloc(first, layout(3, 1));
                assert_eq!(in_use(), 16);
                assert_eq!(ARENA.realloc(first, layout(3, 1), 2), first);
                ARENA.dealloc(second, layout(8, 8));
                assert_eq!(in_use(), 8);
            }
        });
    }

    #[test]
    fn what_is_large_or_too_much_comes_from_libc() {
        alone(|| {
            static ARENA: Arena = Arena::new();
            let is_ours = |pointer| ARENA.offset(pointer).is_some();
            unsafe {
                let large = ARENA.alloc(layout(LARGE + 1, 1));
                let page = ARENA.alloc(layout(1, 128));
                assert!(!is_ours(large) && !is_ours(page) && page.addr() % 128 == 0);
                let grown = ARENA.alloc(layout(LARGE, 1));
                assert!(is_ours(grown));
                grown.write_bytes(7, LARGE);
                let grown = ARENA.realloc(grown, layout(LARGE, 1), LARGE + 1);
                assert!(!is_ours(grown) && *grown.add(LARGE - 1) == 7);
                let pieces: Vec<_> = (0..SIZE / LARGE + 2).map(|_| ARENA.alloc(layout(LARGE, 1))).collect();
                assert_eq!(pieces.iter().filter(|piece| is_ours(**piece)).count(), SIZE / LARGE);
                for piece in pieces.into_iter().rev() {
                    ARENA.dealloc(piece, layout(LARGE, 1));
                }
                assert_eq!(ARENA.used(), Some(0));
                ARENA.dealloc(grown, layout(LARGE + 1, 1));
                ARENA.dealloc(large, layout(LARGE + 1, 1));
                ARENA.dealloc(page, layout(1, 128));
            }
        });
    }

    #[test]
    fn one_thread_has_it() {
        alone(|| {
            static ARENA: Arena = Arena::new();
            let ours = unsafe { ARENA.alloc(layout(10, 1)) }.addr();
            std::thread::spawn(move || unsafe {
                let theirs = ARENA.alloc(layout(10, 1));
                assert!(ARENA.offset(theirs).is_none());
                // What another thread took stays where it is.
                let moved = ARENA.realloc(ARENA.room.get().cast::<u8>().with_addr(ours), layout(10, 1), 20);
                assert!(ARENA.offset(moved).is_none());
                ARENA.dealloc(moved, layout(20, 1));
                ARENA.dealloc(theirs, layout(10, 1));
            })
            .join()
            .unwrap();
            assert_eq!(ARENA.used(), Some(10));
        });
    }
}

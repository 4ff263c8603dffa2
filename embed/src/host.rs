//! What the standard library would bring, from C: memory, and the end of the process.

use core::alloc::{GlobalAlloc, Layout};
use core::ffi::{c_int, c_void};

unsafe extern "C" {
    fn malloc(bytes: usize) -> *mut c_void;
    fn free(block: *mut c_void);
    fn posix_memalign(block: *mut *mut c_void, alignment: usize, bytes: usize) -> c_int;
    fn abort() -> !;
}

/// What `malloc` aligns to everywhere: two words.
const ALIGNMENT: usize = 2 * size_of::<usize>();

/// C's allocator.
struct Heap;

#[global_allocator]
static HEAP: Heap = Heap;

// SAFETY: blocks come from C's allocator with the alignment asked for, live until they are given
// back to it, and a null pointer says that there are none.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.align() <= ALIGNMENT {
            // SAFETY: any size may be asked for.
            return unsafe { malloc(layout.size()) }.cast();
        }
        let mut block = core::ptr::null_mut();
        // SAFETY: the alignment is a power of two and a multiple of a pointer's size, being more
        // than two of them.
        match unsafe { posix_memalign(&raw mut block, layout.align(), layout.size()) } {
            0 => block.cast(),
            _ => core::ptr::null_mut(),
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, _layout: Layout) {
        // SAFETY: the caller's promise: the block came from `alloc`.
        unsafe { free(block.cast()) };
    }
}

/// A panic is a fault of this library: its checks come before its work. There is nobody to tell.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: it has no conditions.
    unsafe { abort() }
}

/// `core` and `alloc` come compiled for unwinding and name this; nothing here unwinds.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

//! The functions of `include/fledgling.h`.
//!
//! Every pointer is checked for null before it is used. That it leads to as many numbers as the
//! caller says, and that an object is one of ours and used by one thread at a time, no library can
//! check: it is the contract that the header states, and what the `SAFETY` comments refer to.

use alloc::boxed::Box;
use alloc::string::{String, ToString as _};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ffi::c_char;
use core::slice;

use fl_edge::{Inputs, SharedBytes};

use crate::EmbedError;
#[cfg(feature = "train")]
use crate::learner::{Learner, Plan};
use crate::server::Server;

/// Version of the interface: it grows when a function changes.
const INTERFACE: u32 = 1;
/// Bytes of a message, with the zero at its end.
const MESSAGE: usize = 248;

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum FlStatus {
    /// It did what it should.
    Ok = 0,
    /// An argument is wrong.
    Argument = 1,
    /// The model file is damaged, of another kind, or no model file.
    File = 2,
    /// An example holds a label or token that the model does not know.
    Example = 3,
}

/// Why a call failed.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct FlError {
    status: i32,
    message: [c_char; MESSAGE],
}

impl Default for FlError {
    fn default() -> Self {
        Self {
            status: FlStatus::Ok as i32,
            message: [0; MESSAGE],
        }
    }
}

impl FlError {
    /// The status of the last call that failed.
    #[must_use]
    pub fn status(&self) -> i32 {
        self.status
    }

    /// Its message.
    #[must_use]
    pub fn message(&self) -> String {
        let bytes = self.message.iter().map(|&byte| byte as u8);
        let bytes: Vec<u8> = bytes.take_while(|&byte| byte != 0).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn of(error: &EmbedError) -> Self {
        let mut failed = Self {
            status: status(error) as i32,
            ..Self::default()
        };
        let text = error.to_string();
        for (to, from) in failed.message[..MESSAGE - 1].iter_mut().zip(text.bytes()) {
            *to = from as c_char;
        }
        failed
    }
}

fn status(error: &EmbedError) -> FlStatus {
    match error {
        EmbedError::File(_) => FlStatus::File,
        #[cfg(feature = "describe")]
        EmbedError::Program(_) => FlStatus::File,
        EmbedError::Token { .. } => FlStatus::Example,
        #[cfg(feature = "train")]
        EmbedError::Example(_) => FlStatus::Example,
        _ => FlStatus::Argument,
    }
}

/// Tells the caller how it ended.
///
/// # Safety
/// `error` is null or leads to an `FlError` that may be written.
unsafe fn finish(result: Result<(), EmbedError>, error: *mut FlError) -> FlStatus {
    let Err(failed) = result else {
        return FlStatus::Ok;
    };
    if !error.is_null() {
        // SAFETY: not null, and the caller's promise.
        unsafe { error.write(FlError::of(&failed)) };
    }
    status(&failed)
}

/// A new object, or null and why.
///
/// # Safety
/// As [`finish`].
unsafe fn object<T>(result: Result<T, EmbedError>, error: *mut FlError) -> *mut T {
    match result {
        Ok(object) => Box::into_raw(Box::new(object)),
        Err(failed) => {
            // SAFETY: the caller's promise.
            unsafe { finish(Err(failed), error) };
            core::ptr::null_mut()
        }
    }
}

/// The caller's object.
///
/// # Safety
/// `pointer` is null or leads to a `T` that nobody else uses.
unsafe fn theirs<'a, T>(pointer: *mut T, what: &'static str) -> Result<&'a mut T, EmbedError> {
    // SAFETY: the caller's promise.
    unsafe { pointer.as_mut() }.ok_or(EmbedError::Null { what })
}

/// The caller's numbers; null is as good as anything for none.
///
/// # Safety
/// `pointer` is null or leads to `length` numbers that nobody writes.
unsafe fn read<'a, T>(
    pointer: *const T,
    length: usize,
    what: &'static str,
) -> Result<&'a [T], EmbedError> {
    match (pointer.is_null(), length) {
        (_, 0) => Ok(&[]),
        (true, _) => Err(EmbedError::Null { what }),
        // SAFETY: not null, and the caller's promise.
        (false, _) => Ok(unsafe { slice::from_raw_parts(pointer, length) }),
    }
}

/// The caller's room for numbers.
///
/// # Safety
/// `pointer` is null or leads to `length` numbers that nobody else uses.
unsafe fn room<'a, T>(
    pointer: *mut T,
    length: usize,
    what: &'static str,
) -> Result<&'a mut [T], EmbedError> {
    match (pointer.is_null(), length) {
        (_, 0) => Ok(&mut []),
        (true, _) => Err(EmbedError::Null { what }),
        // SAFETY: not null, and the caller's promise.
        (false, _) => Ok(unsafe { slice::from_raw_parts_mut(pointer, length) }),
    }
}

/// Bytes that stay with the caller.
struct Borrowed {
    start: *const u8,
    length: usize,
}

// SAFETY: the bytes are only read, and the caller does not change them while the object is open.
unsafe impl Send for Borrowed {}
// SAFETY: as above.
unsafe impl Sync for Borrowed {}

impl AsRef<[u8]> for Borrowed {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `borrow` has checked for null; the caller keeps the bytes until it closes the
        // object, as the header says.
        unsafe { slice::from_raw_parts(self.start, self.length) }
    }
}

fn borrow(start: *const u8, length: usize) -> Result<SharedBytes, EmbedError> {
    if start.is_null() {
        return Err(EmbedError::Null { what: "bytes" });
    }
    Ok(Arc::new(Borrowed { start, length }))
}

/// A product of lengths that may be too large for memory.
fn times(a: usize, b: usize, what: &'static str) -> Result<usize, EmbedError> {
    let product = a
        .checked_mul(b)
        .filter(|&all| all <= isize::MAX as usize / 8);
    product.ok_or(EmbedError::Length {
        what,
        found: a,
        expected: isize::MAX as usize / 8 / b.max(1),
    })
}

/// Version of the interface.
#[unsafe(no_mangle)]
pub extern "C" fn fl_interface() -> u32 {
    INTERFACE
}

/// See `fledgling.h`.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fl_model_open(
    bytes: *const u8,
    length: usize,
    verify: i32,
    error: *mut FlError,
) -> *mut Server {
    let opened = borrow(bytes, length).and_then(|bytes| Server::open(bytes, verify != 0));
    // SAFETY: the caller's promise.
    unsafe { object(opened, error) }
}

/// See `fledgling.h`.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fl_model_close(model: *mut Server) {
    if !model.is_null() {
        // SAFETY: it came from `fl_model_open` and is not used again.
        drop(unsafe { Box::from_raw(model) });
    }
}

/// See `fledgling.h`.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fl_model_input_len(model: *const Server) -> usize {
    // SAFETY: the caller's promise.
    unsafe { model.as_ref() }.map_or(0, Server::input_len)
}

/// See `fledgling.h`.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fl_model_output_len(model: *const Server) -> usize {
    // SAFETY: the caller's promise.
    unsafe { model.as_ref() }.map_or(0, Server::output_len)
}

/// See `fledgling.h`.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fl_model_vocabulary(model: *const Server) -> usize {
    // SAFETY: the caller's promise.
    unsafe { model.as_ref() }
        .and_then(Server::vocabulary)
        .unwrap_or(0)
}

/// See `fledgling.h`.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fl_model_run(
    model: *mut Server,
    inputs: *const f32,
    examples: usize,
    outputs: *mut f32,
    error: *mut FlError,
) -> FlStatus {
    // SAFETY: the caller's promise.
    unsafe { run(model, inputs, Inputs::Real, examples, outputs, error) }
}

/// See `fledgling.h`.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fl_model_run_tokens(
    model: *mut Server,
    tokens: *const u32,
    examples: usize,
    outputs: *mut f32,
    error: *mut FlError,
) -> FlStatus {
    // SAFETY: the caller's promise.
    unsafe { run(model, tokens, Inputs::Tokens, examples, outputs, error) }
}

/// Outputs for inputs of either kind.
///
/// # Safety
/// As the header says of `fl_model_run`.
unsafe fn run<'a, T: 'a>(
    model: *mut Server,
    inputs: *const T,
    kind: fn(&'a [T]) -> Inputs<'a>,
    examples: usize,
    outputs: *mut f32,
    error: *mut FlError,
) -> FlStatus {
    let run = || {
        // SAFETY: the caller's promise.
        let model = unsafe { theirs(model, "model") }?;
        let count = times(examples, model.input_len(), "inputs")?;
        // SAFETY: as above.
        let inputs = unsafe { read(inputs, count, "inputs") }?;
        let count = times(examples, model.output_len(), "outputs")?;
        // SAFETY: as above.
        let outputs = unsafe { room(outputs, count, "outputs") }?;
        model.run(kind(inputs), outputs)
    };
    // SAFETY: as above.
    unsafe { finish(run(), error) }
}

/// See `fledgling.h`.
///
/// # Safety
/// As the header says.
#[cfg(feature = "train")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fl_trainer_open(
    bytes: *const u8,
    length: usize,
    error: *mut FlError,
) -> *mut Learner {
    let opened = borrow(bytes, length).and_then(Learner::open);
    // SAFETY: the caller's promise.
    unsafe { object(opened, error) }
}

/// See `fledgling.h`.
///
/// # Safety
/// As the header says.
#[cfg(feature = "train")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fl_trainer_close(trainer: *mut Learner) {
    if !trainer.is_null() {
        // SAFETY: it came from `fl_trainer_open` and is not used again.
        drop(unsafe { Box::from_raw(trainer) });
    }
}

/// See `fledgling.h`.
///
/// # Safety
/// As the header says.
#[cfg(feature = "train")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fl_trainer_parameters(trainer: *const Learner) -> usize {
    // SAFETY: the caller's promise.
    unsafe { trainer.as_ref() }.map_or(0, Learner::parameters)
}

/// See `fledgling.h`.
///
/// # Safety
/// As the header says.
#[cfg(feature = "train")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fl_trainer_begin(
    trainer: *mut Learner,
    plan: *const Plan,
    batch: usize,
    error: *mut FlError,
) -> FlStatus {
    let begin = || {
        // SAFETY: the caller's promise.
        let trainer = unsafe { theirs(trainer, "trainer") }?;
        // SAFETY: as above.
        let plan = unsafe { plan.as_ref() }.ok_or(EmbedError::Null { what: "plan" })?;
        trainer.begin(plan, batch)
    };
    // SAFETY: as above.
    unsafe { finish(begin(), error) }
}

/// See `fledgling.h`.
///
/// # Safety
/// As the header says.
#[cfg(feature = "train")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fl_trainer_step(
    trainer: *mut Learner,
    inputs: *const f32,
    labels: *const u32,
    examples: usize,
    loss: *mut f64,
    error: *mut FlError,
) -> FlStatus {
    // SAFETY: the caller's promise.
    unsafe { step(trainer, inputs, Inputs::Real, labels, examples, loss, error) }
}

/// See `fledgling.h`.
///
/// # Safety
/// As the header says.
#[cfg(feature = "train")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fl_trainer_step_tokens(
    trainer: *mut Learner,
    tokens: *const u32,
    labels: *const u32,
    examples: usize,
    loss: *mut f64,
    error: *mut FlError,
) -> FlStatus {
    // SAFETY: the caller's promise.
    unsafe {
        step(
            trainer,
            tokens,
            Inputs::Tokens,
            labels,
            examples,
            loss,
            error,
        )
    }
}

/// One step on inputs of either kind.
///
/// # Safety
/// As the header says of `fl_trainer_step`.
#[cfg(feature = "train")]
unsafe fn step<'a, T: 'a>(
    trainer: *mut Learner,
    inputs: *const T,
    kind: fn(&'a [T]) -> Inputs<'a>,
    labels: *const u32,
    examples: usize,
    loss: *mut f64,
    error: *mut FlError,
) -> FlStatus {
    let step = || {
        // SAFETY: the caller's promise.
        let trainer = unsafe { theirs(trainer, "trainer") }?;
        let count = times(examples, trainer.input_len(), "inputs")?;
        // SAFETY: as above.
        let inputs = unsafe { read(inputs, count, "inputs") }?;
        // SAFETY: as above.
        let labels = unsafe { read(labels, examples, "labels") }?;
        let mean = trainer.step(kind(inputs), labels)?;
        // SAFETY: as above.
        if let Some(loss) = unsafe { loss.as_mut() } {
            *loss = mean;
        }
        Ok(())
    };
    // SAFETY: as above.
    unsafe { finish(step(), error) }
}

/// See `fledgling.h`.
///
/// # Safety
/// As the header says.
#[cfg(feature = "train")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fl_trainer_update(
    trainer: *mut Learner,
    update: *mut f32,
    length: usize,
    error: *mut FlError,
) -> FlStatus {
    let read = || {
        // SAFETY: the caller's promise.
        let trainer = unsafe { theirs(trainer, "trainer") }?;
        // SAFETY: as above.
        let update = unsafe { room(update, length, "update") }?;
        trainer.update(update)
    };
    // SAFETY: as above.
    unsafe { finish(read(), error) }
}

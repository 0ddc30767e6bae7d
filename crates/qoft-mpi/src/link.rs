//! Messages from one process to another, none of which is waited for without end.

use std::ffi::{c_char, c_int, c_void};
use std::mem::MaybeUninit;

use mpi::ffi;
use qoft_train::group::GroupError;

/// What messages are about. Those of one kind between two processes arrive in the order in which they were
/// sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tag {
    /// The value of one process, for rank 0.
    Value = 1,
    /// The values of all, from rank 0.
    Values = 2,
    /// A process is waiting for others.
    Alive = 3,
    /// A slice of numbers.
    Slice = 4,
    /// A process failed.
    Failure = 5,
}

/// What messages consist of.
pub(crate) trait Element: Copy + Default + 'static {
    /// MPI's word for it.
    fn datatype() -> ffi::MPI_Datatype;
}

impl Element for u8 {
    fn datatype() -> ffi::MPI_Datatype {
        // SAFETY: a constant of the library.
        unsafe { ffi::RSMPI_UINT8_T }
    }
}

impl Element for f32 {
    fn datatype() -> ffi::MPI_Datatype {
        // SAFETY: a constant of the library.
        unsafe { ffi::RSMPI_FLOAT }
    }
}

/// Fails with what the library says of a code.
pub(crate) fn checked(code: c_int) -> Result<(), GroupError> {
    if code == ffi::MPI_SUCCESS as c_int {
        return Ok(());
    }
    let mut text = [0_u8; ffi::MPI_MAX_ERROR_STRING as usize + 1];
    let mut length = 0;
    // SAFETY: the library writes at most MPI_MAX_ERROR_STRING bytes.
    let found =
        unsafe { ffi::MPI_Error_string(code, text.as_mut_ptr().cast::<c_char>(), &mut length) };
    let length = usize::try_from(length).unwrap_or(0).min(text.len());
    let text = String::from_utf8_lossy(&text[..length]).into_owned();
    Err(GroupError::Library(
        match found == ffi::MPI_SUCCESS as c_int {
            true => text,
            false => format!("error {code}"),
        },
    ))
}

fn world() -> ffi::MPI_Comm {
    // SAFETY: a constant of the library, which is initialized as long as there is a `World`.
    unsafe { ffi::RSMPI_COMM_WORLD }
}

fn count(length: usize) -> Result<c_int, GroupError> {
    c_int::try_from(length)
        .map_err(|_| GroupError::Library(format!("{length} values in a message are too many")))
}

fn rank_of(peer: usize) -> Result<c_int, GroupError> {
    count(peer)
}

/// A message on its way, with its memory.
#[derive(Debug)]
pub(crate) struct Message<T: Element> {
    /// The process at its other end.
    pub(crate) peer: usize,
    request: ffi::MPI_Request,
    done: bool,
    /// The library reads or writes it until the message is done.
    values: Vec<T>,
}

impl<T: Element> Message<T> {
    /// Sends a copy of values.
    pub(crate) fn send(peer: usize, tag: Tag, values: &[T]) -> Result<Self, GroupError> {
        Self::begin(peer, values.to_vec(), |values, length, rank, request| {
            // SAFETY: `begin` vouches for the arguments.
            unsafe {
                let values = values.cast_const();
                ffi::MPI_Isend(
                    values,
                    length,
                    T::datatype(),
                    rank,
                    tag as c_int,
                    world(),
                    request,
                )
            }
        })
    }

    /// Receives `length` values; a message that is longer is an error of the library.
    pub(crate) fn receive(peer: usize, tag: Tag, length: usize) -> Result<Self, GroupError> {
        let values = vec![T::default(); length];
        Self::begin(peer, values, |values, length, rank, request| {
            // SAFETY: `begin` vouches for the arguments.
            unsafe {
                ffi::MPI_Irecv(
                    values,
                    length,
                    T::datatype(),
                    rank,
                    tag as c_int,
                    world(),
                    request,
                )
            }
        })
    }

    /// Begins by a call of the library, which gets the values, how many these are, the rank at the other end,
    /// and the place of the request. There are so many elements of this type, which are neither moved from
    /// their place on the heap nor freed before the message is done: see `drop`.
    fn begin(
        peer: usize,
        mut values: Vec<T>,
        call: impl FnOnce(*mut c_void, c_int, c_int, *mut ffi::MPI_Request) -> c_int,
    ) -> Result<Self, GroupError> {
        let (length, rank) = (count(values.len())?, rank_of(peer)?);
        let mut request = MaybeUninit::uninit();
        let memory = values.as_mut_ptr().cast::<c_void>();
        checked(call(memory, length, rank, request.as_mut_ptr()))?;
        Ok(Self {
            peer,
            // SAFETY: the call was a success.
            request: unsafe { request.assume_init() },
            done: false,
            values,
        })
    }

    /// Whether it is through; this is also what moves it.
    pub(crate) fn is_done(&mut self) -> Result<bool, GroupError> {
        if !self.done {
            let mut flag = 0;
            // SAFETY: the request is under way.
            checked(unsafe {
                ffi::MPI_Test(&mut self.request, &mut flag, ffi::RSMPI_STATUS_IGNORE)
            })?;
            self.done = flag != 0;
        }
        Ok(self.done)
    }

    /// The values of a message that is done.
    pub(crate) fn into_values(mut self) -> Vec<T> {
        match self.done {
            true => std::mem::take(&mut self.values),
            false => Vec::new(),
        }
    }
}

impl<T: Element> Drop for Message<T> {
    fn drop(&mut self) {
        if !self.done {
            // The library may use it until the process ends, which is soon.
            std::mem::forget(std::mem::take(&mut self.values));
        }
    }
}

/// A message that waits to be received: who sent it, and how many bytes it has. `from` is none for anybody.
pub(crate) fn waiting(from: Option<usize>, tag: Tag) -> Result<Option<(usize, usize)>, GroupError> {
    let source = match from {
        Some(rank) => rank_of(rank)?,
        // SAFETY: a constant of the library.
        None => unsafe { ffi::RSMPI_ANY_SOURCE },
    };
    let (mut flag, mut status) = (0, MaybeUninit::<ffi::MPI_Status>::uninit());
    // SAFETY: both are written by the library.
    checked(unsafe {
        ffi::MPI_Iprobe(
            source,
            tag as c_int,
            world(),
            &mut flag,
            status.as_mut_ptr(),
        )
    })?;
    if flag == 0 {
        return Ok(None);
    }
    // SAFETY: there is a message, so the status was written.
    let status = unsafe { status.assume_init() };
    let mut length = 0;
    // SAFETY: as above.
    checked(unsafe { ffi::MPI_Get_count(&status, u8::datatype(), &mut length) })?;
    let number = |number: c_int| usize::try_from(number).unwrap_or(0);
    Ok(Some((number(status.MPI_SOURCE), number(length))))
}

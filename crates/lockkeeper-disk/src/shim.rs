//! Between SQLite and the system: the one file of the project that is `unsafe`, because SQLite is
//! told of another way to its files in C.
//!
//! A copy of SQLite's own way becomes the default of this process. It opens the files of folders
//! that a [`Disk`](crate::Disk) watches under a second layer, and any other file as ever. The layer
//! asks the disk before it writes, cuts, syncs or removes anything; it decides nothing itself.
#![allow(unsafe_code, reason = "this is the border to C")]

use crate::disk::{Act, Told, Watched, find};
use rusqlite::ffi::{
    self, SQLITE_OK, SQLITE_OPEN_CREATE, SQLITE_OPEN_READONLY, SQLITE_OPEN_READWRITE, sqlite3_file,
    sqlite3_io_methods, sqlite3_vfs,
};
use std::{
    cell::Cell,
    ffi::{CStr, c_char, c_int, c_void},
    mem::{size_of, transmute},
    path::Path,
    ptr::{addr_of, null, null_mut},
    slice,
    sync::OnceLock,
};

/// A file of a watched folder as SQLite knows it. The system's file follows right behind it.
#[repr(C)]
struct Layer {
    methods: *const sqlite3_io_methods,
    own: sqlite3_io_methods,
    watched: *mut Watched,
}

/// SQLite's own way, and its own way to open a folder.
struct Below {
    vfs: *mut sqlite3_vfs,
    open_folder: unsafe extern "C" fn(*const c_char, *mut c_int) -> c_int,
}

// SQLite keeps it for as long as the process lives and changes nothing of it.
unsafe impl Send for Below {}
unsafe impl Sync for Below {}

static BELOW: OnceLock<Below> = OnceLock::new();

thread_local! {
    /// Whether SQLite has opened a folder, which it does only in order to sync it.
    static FOLDER_SYNCED: Cell<bool> = const { Cell::new(false) };
}

/// Makes the second layer the default way of this process, once.
pub(crate) fn install() {
    BELOW.get_or_init(|| {
        // SAFETY: SQLite is initialised, so its default way is there and stays. Our copy of it is
        // never freed. The name of a system call comes with the type SQLite gives it.
        unsafe {
            assert_eq!(ffi::sqlite3_initialize(), SQLITE_OK, "SQLite does not begin");
            let vfs = ffi::sqlite3_vfs_find(null());
            assert!(!vfs.is_null(), "SQLite knows no file system");
            let get = (*vfs).xGetSystemCall.expect("a file system of Unix");
            let set = (*vfs).xSetSystemCall.expect("a file system of Unix");
            let call = c"openDirectory".as_ptr();
            let open_folder = get(vfs, call).expect("SQLite syncs folders");
            let open_folder = transmute::<
                unsafe extern "C" fn(),
                unsafe extern "C" fn(*const c_char, *mut c_int) -> c_int,
            >(open_folder);
            let ours = transmute::<
                unsafe extern "C" fn(*const c_char, *mut c_int) -> c_int,
                unsafe extern "C" fn(),
            >(opens_folder);
            assert_eq!(set(vfs, call, Some(ours)), SQLITE_OK, "SQLite keeps its own call");
            let layered = Box::leak(Box::new(*vfs));
            layered.zName = c"lockkeeper-disk".as_ptr();
            layered.pNext = null_mut();
            layered.szOsFile += size_of::<Layer>() as c_int;
            layered.xOpen = Some(opens);
            layered.xDelete = Some(removes);
            assert_eq!(ffi::sqlite3_vfs_register(layered, 1), SQLITE_OK, "not registered");
            Below { vfs, open_folder }
        }
    });
}

fn below() -> &'static Below {
    BELOW.get().expect("it is set before the layer is registered")
}

unsafe extern "C" fn opens_folder(path: *const c_char, folder: *mut c_int) -> c_int {
    FOLDER_SYNCED.set(true);
    // SAFETY: as SQLite calls its own.
    unsafe { (below().open_folder)(path, folder) }
}

/// What `act` did, and whether SQLite synced the folder meanwhile.
fn and_folder(act: impl FnOnce() -> c_int) -> Told {
    FOLDER_SYNCED.set(false);
    let code = act();
    Told { code, folder_synced: FOLDER_SYNCED.replace(false) }
}

/// The layer and the system's file behind it.
///
/// # Safety
/// The file is one that [`opens`] has put a layer on.
unsafe fn parts<'a>(file: *mut sqlite3_file) -> (&'a Layer, &'a Watched, *mut sqlite3_file) {
    // SAFETY: the layer stands at the beginning, and the system's file right behind it.
    unsafe {
        let layer = file.cast::<Layer>();
        (&*layer, &*(*layer).watched, layer.add(1).cast())
    }
}

/// What the system does with a file.
///
/// # Safety
/// The file is open.
unsafe fn methods<'a>(file: *mut sqlite3_file) -> &'a sqlite3_io_methods {
    // SAFETY: an open file has its methods.
    unsafe { &*(*file).pMethods }
}

unsafe fn path_of<'a>(name: *const c_char) -> Option<&'a Path> {
    if name.is_null() {
        return None;
    }
    // SAFETY: SQLite's names end with a zero.
    unsafe { CStr::from_ptr(name) }.to_str().ok().map(Path::new)
}

unsafe extern "C" fn opens(
    _: *mut sqlite3_vfs,
    name: *const c_char,
    file: *mut sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: SQLite gives room for `szOsFile` bytes, the layer's and the system's, and a name that
    // lives as long as the file. What has no methods yet is not closed.
    unsafe {
        let vfs = below().vfs;
        let open = (*vfs).xOpen.expect("it opens files");
        let watched = path_of(name).and_then(find);
        let Some((disk, inside)) = watched else { return open(vfs, name, file, flags, out) };
        (*file).pMethods = null();
        let real = file.cast::<Layer>().add(1).cast::<sqlite3_file>();
        let mut flags = flags;
        let makes = flags & SQLITE_OPEN_CREATE != 0;
        if flags & SQLITE_OPEN_READWRITE != 0 && disk.is_read_only() {
            // As SQLite does when the system refuses to write.
            flags = flags & !(SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE) | SQLITE_OPEN_READONLY;
        }
        let opened = disk.open(&inside, makes, || {
            let told = open(vfs, name, real, flags, out);
            if told != SQLITE_OK && !(*real).pMethods.is_null() {
                methods(real).xClose.map(|close| close(real));
            }
            told
        });
        let watched = match opened {
            Ok(watched) => watched,
            Err(code) => return code,
        };
        let layer = file.cast::<Layer>();
        let mut own = *methods(real);
        // No mapped pages: what is read there is not seen.
        own.iVersion = own.iVersion.min(2);
        layer.write(Layer { methods: null(), own: layered(own), watched: Box::into_raw(watched) });
        (*layer).methods = addr_of!((*layer).own);
        SQLITE_OK
    }
}

fn layered(below: sqlite3_io_methods) -> sqlite3_io_methods {
    sqlite3_io_methods {
        xClose: Some(closes),
        xRead: Some(reads),
        xWrite: Some(writes),
        xTruncate: Some(cuts),
        xSync: Some(syncs),
        xFileSize: Some(measures),
        xLock: Some(locks),
        xUnlock: Some(unlocks),
        xCheckReservedLock: Some(is_reserved),
        xFileControl: Some(controls),
        xSectorSize: Some(sector_size),
        xDeviceCharacteristics: Some(characteristics),
        xShmMap: Some(shares),
        xShmLock: Some(locks_shared),
        xShmBarrier: Some(barrier),
        xShmUnmap: Some(unshares),
        ..below
    }
}

unsafe extern "C" fn removes(_: *mut sqlite3_vfs, name: *const c_char, sync: c_int) -> c_int {
    // SAFETY: handed on as it came.
    unsafe {
        let vfs = below().vfs;
        let act = || and_folder(|| ((*vfs).xDelete.expect("it removes files"))(vfs, name, sync));
        match path_of(name).and_then(find) {
            None => act().code,
            Some((disk, inside)) => disk.remove(&inside, act),
        }
    }
}

unsafe extern "C" fn closes(file: *mut sqlite3_file) -> c_int {
    // SAFETY: it is closed once, and nothing of it is used afterwards.
    unsafe {
        let (layer, _, real) = parts(file);
        let watched = layer.watched;
        let told = methods(real).xClose.expect("a method")(real);
        drop(Box::from_raw(watched));
        (*file).pMethods = null();
        told
    }
}

unsafe extern "C" fn writes(
    file: *mut sqlite3_file,
    bytes: *const c_void,
    count: c_int,
    at: i64,
) -> c_int {
    // SAFETY: SQLite lends so many bytes for the time of the call.
    unsafe {
        let (_, watched, real) = parts(file);
        let bytes = slice::from_raw_parts(bytes.cast::<u8>(), count as usize);
        let write = methods(real).xWrite.expect("a method");
        watched.act(Act::Write { at: at as usize, bytes }, |part| {
            let part = &bytes[..part];
            let told = write(real, part.as_ptr().cast(), part.len() as c_int, at);
            Told { code: told, folder_synced: false }
        })
    }
}

unsafe extern "C" fn cuts(file: *mut sqlite3_file, size: i64) -> c_int {
    // SAFETY: handed on as it came.
    unsafe {
        let (_, watched, real) = parts(file);
        let cut = methods(real).xTruncate.expect("a method");
        watched.act(Act::Truncate { size: size as usize }, |_| and_folder(|| cut(real, size)))
    }
}

unsafe extern "C" fn syncs(file: *mut sqlite3_file, flags: c_int) -> c_int {
    // SAFETY: handed on as it came.
    unsafe {
        let (_, watched, real) = parts(file);
        let sync = methods(real).xSync.expect("a method");
        watched.act(Act::Sync, |_| and_folder(|| sync(real, flags)))
    }
}

unsafe extern "C" fn reads(
    file: *mut sqlite3_file,
    bytes: *mut c_void,
    count: c_int,
    at: i64,
) -> c_int {
    // SAFETY: handed on as it came.
    unsafe {
        let (_, watched, real) = parts(file);
        let read = methods(real).xRead.expect("a method");
        watched.act(Act::Read, |_| and_folder(|| read(real, bytes, count, at)))
    }
}

unsafe extern "C" fn shares(
    file: *mut sqlite3_file,
    page: c_int,
    size: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> c_int {
    // SAFETY: handed on as it came.
    unsafe {
        let (_, watched, real) = parts(file);
        let share = methods(real).xShmMap.expect("a method");
        watched.act(Act::Share, |_| and_folder(|| share(real, page, size, extend, out)))
    }
}

/// What is handed on as it came.
macro_rules! handed_on {
    ($($name:ident = $method:ident ( $($arg:ident : $type:ty),* ) $(-> $told:ty)?;)*) => {$(
        unsafe extern "C" fn $name(file: *mut sqlite3_file $(, $arg: $type)*) $(-> $told)? {
            // SAFETY: handed on as it came.
            unsafe {
                let (_, _, real) = parts(file);
                methods(real).$method.expect("a method")(real $(, $arg)*)
            }
        }
    )*};
}

handed_on! {
    measures = xFileSize(size: *mut i64) -> c_int;
    locks = xLock(level: c_int) -> c_int;
    unlocks = xUnlock(level: c_int) -> c_int;
    is_reserved = xCheckReservedLock(out: *mut c_int) -> c_int;
    sector_size = xSectorSize() -> c_int;
    characteristics = xDeviceCharacteristics() -> c_int;
    locks_shared = xShmLock(at: c_int, count: c_int, flags: c_int) -> c_int;
    barrier = xShmBarrier();
    unshares = xShmUnmap(remove: c_int) -> c_int;
}

/// Room that is asked for in advance is not given, and no chunks: only writes make a file longer.
unsafe extern "C" fn controls(file: *mut sqlite3_file, what: c_int, with: *mut c_void) -> c_int {
    if matches!(what, ffi::SQLITE_FCNTL_SIZE_HINT | ffi::SQLITE_FCNTL_CHUNK_SIZE) {
        return SQLITE_OK;
    }
    // SAFETY: handed on as it came.
    unsafe {
        let (_, _, real) = parts(file);
        methods(real).xFileControl.expect("a method")(real, what, with)
    }
}

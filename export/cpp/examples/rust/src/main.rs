//! Says what is on a file of raw RGB pixels: classify PACK WIDTH HEIGHT FILE
//!
//! EDGEVIT_LIB_DIR=/usr/local/lib cargo run -- pack.edgevit.zip 640 480 frame.rgb

use std::ffi::{c_char, c_int, CStr, CString};
use std::process::ExitCode;

#[repr(C)]
struct Image {
    pixels: *const u8,
    width: i32,
    height: i32,
    stride: usize,
    format: c_int,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Prediction {
    index: i32,
    probability: f32,
}

enum Handle {}

extern "C" {
    fn edgevit_open(path: *const c_char, options: *const u8, model: *mut *mut Handle) -> c_int;
    fn edgevit_close(model: *mut Handle);
    fn edgevit_predict(
        model: *mut Handle,
        image: *const Image,
        predictions: *mut Prediction,
        capacity: usize,
        count: *mut usize,
    ) -> c_int;
    fn edgevit_label(model: *const Handle, index: usize) -> *const c_char;
    fn edgevit_last_error() -> *const c_char;
}

/// An open model, which is closed when it goes.
struct Model(*mut Handle);

// The library says that any number of threads may share a model.
unsafe impl Send for Model {}
unsafe impl Sync for Model {}

fn checked(status: c_int) -> Result<(), String> {
    if status == 0 {
        return Ok(());
    }
    Err(unsafe { CStr::from_ptr(edgevit_last_error()) }.to_string_lossy().into_owned())
}

impl Model {
    fn open(path: &str) -> Result<Model, String> {
        let path = CString::new(path).map_err(|error| error.to_string())?;
        let mut handle = std::ptr::null_mut();
        checked(unsafe { edgevit_open(path.as_ptr(), std::ptr::null(), &mut handle) })?;
        Ok(Model(handle))
    }

    /// The likeliest classes of an image (height, width, 3), with their probabilities.
    fn predict(&self, pixels: &[u8], width: i32, height: i32, top: usize) -> Result<Vec<(String, f32)>, String> {
        if pixels.len() != 3 * width as usize * height as usize {
            return Err(format!("{} bytes are not {width}x{height} pixels", pixels.len()));
        }
        let image = Image { pixels: pixels.as_ptr(), width, height, stride: 0, format: 0 };
        let mut found = vec![Prediction::default(); top];
        let mut count = 0;
        checked(unsafe { edgevit_predict(self.0, &image, found.as_mut_ptr(), top, &mut count) })?;
        Ok(found[..count].iter().map(|each| (self.label(each.index as usize), each.probability)).collect())
    }

    fn label(&self, index: usize) -> String {
        let label = unsafe { edgevit_label(self.0, index) };
        if label.is_null() {
            return index.to_string();
        }
        unsafe { CStr::from_ptr(label) }.to_string_lossy().into_owned()
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        unsafe { edgevit_close(self.0) }
    }
}

fn run(arguments: &[String]) -> Result<(), String> {
    let [_, pack, width, height, file] = arguments else {
        return Err("usage: classify PACK WIDTH HEIGHT FILE".into());
    };
    let size = |text: &String| text.parse::<i32>().map_err(|error| format!("{text}: {error}"));
    let pixels = std::fs::read(file).map_err(|error| format!("{file}: {error}"))?;
    for (label, probability) in Model::open(pack)?.predict(&pixels, size(width)?, size(height)?, 3)? {
        println!("{:.4} {label}", probability);
    }
    Ok(())
}

fn main() -> ExitCode {
    match run(&std::env::args().collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

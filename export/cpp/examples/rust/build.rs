//! Links the library in the folder EDGEVIT_LIB_DIR, or the system's.
fn main() {
    println!("cargo:rustc-link-lib=dylib=edgevit");
    if let Ok(folder) = std::env::var("EDGEVIT_LIB_DIR") {
        println!("cargo:rustc-link-search=native={folder}");
        println!("cargo:rustc-link-arg=-Wl,-rpath,{folder}");
    }
    println!("cargo:rerun-if-env-changed=EDGEVIT_LIB_DIR");
}

//! The size of the terminal.

/// Returns columns and rows of the terminal on standard error, or none if it is no terminal.
pub fn size_of_stderr() -> Option<(u16, u16)> {
    let size = rustix::termios::tcgetwinsize(std::io::stderr()).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col, size.ws_row))
}

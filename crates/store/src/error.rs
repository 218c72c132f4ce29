//! What can go wrong with files, with both sides of the disagreement and the path last.
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::Dtype;
use crate::fetch::Attempts;
use crate::hub::HubFault;

/// A safetensors file breaks the format.
#[derive(Debug, thiserror::Error)]
pub enum SafetensorsFault {
    /// Not even the header's length is there.
    #[error("{given} bytes are too few for a header's length (8)")]
    TooShort {
        /// File length.
        given: u64,
    },
    /// The header's length is beyond what is read here.
    #[error("header of {given} bytes; at most {limit} are read")]
    HeaderTooLong {
        /// Length that the file says.
        given: u64,
        /// Limit.
        limit: u64,
    },
    /// The header would end after the file.
    #[error("header of {header} bytes in a file of {file}: cut short?")]
    HeaderBeyondFile {
        /// Length that the file says.
        header: u64,
        /// File length.
        file: u64,
    },
    /// The header is not the JSON it must be.
    #[error("header is not valid: {0}")]
    Header(serde_json::Error),
    /// More tensors than are read here.
    #[error("{given} tensors or more; at most {limit} are read")]
    TooManyTensors {
        /// Tensors seen.
        given: usize,
        /// Limit.
        limit: usize,
    },
    /// A name stands twice.
    #[error("tensor {name:?} stands twice")]
    Duplicate {
        /// Tensor.
        name: String,
    },
    /// A coding that is not read here.
    #[error("tensor {name:?} is coded as {dtype:?}, which is not read here (BOOL, U8 … U64, I8 … I64, F16, BF16, F32, F64 are)")]
    UnknownDtype {
        /// Tensor.
        name: String,
        /// As the file says.
        dtype: String,
    },
    /// The shape's product overflows.
    #[error("tensor {name:?}: shape {shape:?} has more elements than can be addressed")]
    ShapeOverflow {
        /// Tensor.
        name: String,
        /// Its shape.
        shape: Vec<u64>,
    },
    /// Offsets do not fit shape and coding.
    #[error("tensor {name:?}: bytes {start}..{end} given, {expected} bytes expected for {dtype} {shape:?}")]
    WrongSize {
        /// Tensor.
        name: String,
        /// First byte.
        start: u64,
        /// One after the last byte.
        end: u64,
        /// Bytes that shape and coding ask for.
        expected: u64,
        /// Coding.
        dtype: &'static str,
        /// Shape.
        shape: Vec<usize>,
    },
    /// A tensor starts before or after the end of the one before it.
    #[error("tensor {name:?} starts at byte {given}, {expected} expected: tensors must neither overlap nor leave gaps")]
    NotContiguous {
        /// Tensor.
        name: String,
        /// Its first byte.
        given: u64,
        /// End of the one before.
        expected: u64,
    },
    /// The tensors do not fill the file exactly.
    #[error("tensors end at byte {expected} of the data, the data has {given}: cut short, or something is appended")]
    DataLength {
        /// Bytes after the header.
        given: u64,
        /// End of the last tensor.
        expected: u64,
    },
    /// Asked for numbers of a tensor that has none that are floats.
    #[error("tensor {name:?} is {dtype}, floating point expected")]
    NotFloat {
        /// Tensor.
        name: String,
        /// Coding.
        dtype: &'static str,
    },
    /// A weight is NaN or infinite.
    #[error("tensor {name:?} has {value} at element {index}: not a usable weight")]
    NotFinite {
        /// Tensor.
        name: String,
        /// Which element.
        index: usize,
        /// The value.
        value: f32,
    },
    /// A shard's name has folders in it.
    #[error("the index names the shard {shard:?}; a plain file name ending in .safetensors expected")]
    ShardName {
        /// As the index says.
        shard: String,
    },
    /// A shard is not there.
    #[error("the index names the shard {shard:?}, which is not beside it")]
    ShardMissing {
        /// The file name.
        shard: String,
    },
    /// A tensor is not in the shard where the index puts it.
    #[error("the index puts tensor {name:?} into {shard:?}, which does not hold it")]
    NotInShard {
        /// Tensor.
        name: String,
        /// The file name.
        shard: String,
    },
    /// A shard holds a tensor that the index does not put there.
    #[error("shard {shard:?} holds tensor {name:?}, which the index does not put there")]
    NotInIndex {
        /// Tensor.
        name: String,
        /// The file name.
        shard: String,
    },
}

/// A GGUF file breaks the format or uses what is not read here.
#[derive(Debug, thiserror::Error)]
pub enum GgufFault {
    /// Another kind of file.
    #[error("starts with {given:?}, \"GGUF\" expected")]
    Magic {
        /// First bytes.
        given: String,
    },
    /// A version that is not read.
    #[error("version {given}; 2 and 3 are read")]
    Version {
        /// As the file says.
        given: u32,
    },
    /// Written on a big-endian machine.
    #[error("big-endian file; only little-endian ones are read")]
    BigEndian,
    /// The file ends inside something.
    #[error("file of {file} bytes ends inside {what}, which needs {needed} bytes from byte {at}")]
    CutShort {
        /// What was being read.
        what: &'static str,
        /// Position.
        at: u64,
        /// Bytes needed there.
        needed: u64,
        /// File length.
        file: u64,
    },
    /// More of something than is read here.
    #[error("{given} {what}; at most {limit} are read")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// As the file says.
        given: u64,
        /// Limit.
        limit: u64,
    },
    /// Text is not UTF-8.
    #[error("{what} is not UTF-8")]
    NotText {
        /// Which text.
        what: String,
    },
    /// A key or tensor stands twice.
    #[error("{name:?} stands twice")]
    Duplicate {
        /// Key or tensor.
        name: String,
    },
    /// A value type that does not exist.
    #[error("key {key:?} has value type {given}; 0 to 12 exist")]
    ValueType {
        /// Key.
        key: String,
        /// As the file says.
        given: u32,
    },
    /// A boolean that is neither 0 nor 1.
    #[error("key {key:?} holds the boolean {given}; 0 or 1 expected")]
    Bool {
        /// Key.
        key: String,
        /// As the file says.
        given: u8,
    },
    /// Arrays in arrays in arrays.
    #[error("key {key:?} nests arrays more than {limit} deep")]
    Nesting {
        /// Key.
        key: String,
        /// Limit.
        limit: usize,
    },
    /// Alignment must be a power of two.
    #[error("general.alignment is {given}; a power of two from 1 to {limit} expected")]
    Alignment {
        /// As the file says.
        given: String,
        /// Limit.
        limit: u64,
    },
    /// A key has a value of the wrong kind.
    #[error("key {key:?} holds {given}, {expected} expected")]
    Kind {
        /// Key.
        key: String,
        /// What it holds.
        given: &'static str,
        /// What it should hold.
        expected: &'static str,
    },
    /// Number of dimensions.
    #[error("tensor {name:?} has {given} dimensions; 1 to 4 are read")]
    Dimensions {
        /// Tensor.
        name: String,
        /// As the file says.
        given: u32,
    },
    /// The shape's product overflows or is zero.
    #[error("tensor {name:?}: dimensions {dimensions:?} are zero or more than can be addressed")]
    Shape {
        /// Tensor.
        name: String,
        /// As the file says, innermost first.
        dimensions: Vec<u64>,
    },
    /// A row is not a whole number of blocks.
    #[error("tensor {name:?}: rows of {row} elements, a multiple of {block} expected for {dtype}")]
    TornBlock {
        /// Tensor.
        name: String,
        /// Elements of a row.
        row: u64,
        /// Elements of a block.
        block: usize,
        /// Coding.
        dtype: &'static str,
    },
    /// A block type that exists but is not read.
    #[error("tensor {name:?} is {dtype}: not read (F32, F16, BF16, Q4_0 to Q8_0, Q2_K to Q6_K, IQ4_NL and IQ4_XS are)")]
    LaterType {
        /// Tensor.
        name: String,
        /// Its coding.
        dtype: &'static str,
    },
    /// A type that does not exist.
    #[error("tensor {name:?} has the type number {given}, which does not exist")]
    UnknownType {
        /// Tensor.
        name: String,
        /// As the file says, signed.
        given: i32,
    },
    /// Tensors must follow one another.
    #[error("tensor {name:?} starts at byte {given} of the data, {expected} expected")]
    Offset {
        /// Tensor.
        name: String,
        /// As the file says.
        given: u64,
        /// End of the one before, aligned.
        expected: u64,
    },
    /// The data is shorter or longer than the tensors.
    #[error("tensors end at byte {expected} of the data, the data has {given}: cut short, or something is appended")]
    DataLength {
        /// Bytes after the table.
        given: u64,
        /// End of the last tensor.
        expected: u64,
    },
}

/// An adapter folder asks for what is not done here, or contradicts itself.
#[derive(Debug, thiserror::Error)]
pub enum PeftFault {
    /// Another method.
    #[error("peft_type is {given}; LORA is read")]
    Method {
        /// As the file says.
        given: String,
    },
    /// A key that must be there.
    #[error("adapter_config.json has no {key}")]
    Missing {
        /// Key.
        key: &'static str,
    },
    /// A key has a value that would change the arithmetic in a way that is not done here.
    #[error("{key} is {given}; {expected} is read")]
    Unsupported {
        /// Key.
        key: &'static str,
        /// As the file says.
        given: String,
        /// What is read.
        expected: &'static str,
    },
    /// A number outside what makes sense.
    #[error("{key} is {given}; from {low} to {high} expected")]
    Range {
        /// Key.
        key: &'static str,
        /// As the file says.
        given: String,
        /// Lowest.
        low: f64,
        /// Highest.
        high: f64,
    },
    /// The weights are a pickle file.
    #[error("the weights are in adapter_model.bin, a pickle file, which can run code when read; adapter_model.safetensors expected")]
    Pickle,
    /// Nothing in it.
    #[error("adapter_model.safetensors holds no tensors")]
    Empty,
    /// A tensor's values do not have the number that its shape says.
    #[error("tensor {name:?}: {given} values for the shape {shape:?}")]
    Values {
        /// Tensor.
        name: String,
        /// Number of values.
        given: usize,
        /// Shape.
        shape: Vec<usize>,
    },
}

/// What is wrong with a tensor that bitsandbytes quantised.
#[derive(Debug, thiserror::Error)]
pub enum QuantizedFault {
    /// A tensor beside it is not there.
    #[error("{part:?} is missing")]
    Missing {
        /// The part.
        part: String,
    },
    /// A tensor beside it has another coding or length.
    #[error("{part:?} has {given} numbers of {dtype}, {expected} of {expected_dtype} expected")]
    Part {
        /// The part.
        part: String,
        /// Numbers it has.
        given: u64,
        /// Their coding.
        dtype: &'static str,
        /// Numbers it should have.
        expected: u64,
        /// Their coding.
        expected_dtype: &'static str,
    },
    /// A value that is no number.
    #[error("{part:?} has no finite number at {index}")]
    NotFinite {
        /// The part.
        part: String,
        /// Which.
        index: usize,
    },
    /// Its description does not parse.
    #[error("its quant_state is not a short JSON object as expected: {given}")]
    State {
        /// What is wrong.
        given: String,
    },
    /// Its description names another kind than its name.
    #[error("quant_type is {given:?} under the name of {name:?}; nf4 or fp4 expected")]
    Kind {
        /// In the description.
        given: String,
        /// In the name.
        name: String,
    },
    /// A size of blocks that is none.
    #[error("blocks of {given}, a power of two up to {limit} expected")]
    Block {
        /// As given.
        given: u64,
        /// Limit.
        limit: u64,
    },
    /// A shape that cannot be.
    #[error("shape {given:?}, one to four sizes above zero expected")]
    Shape {
        /// As given.
        given: Vec<u64>,
    },
    /// Bytes laid out for a GPU.
    #[error("weight_format is {given}, 0 (row after row) expected")]
    Order {
        /// As given.
        given: u8,
    },
    /// Two descriptions.
    #[error("it is described twice")]
    Twice,
}

/// Everything that this crate can fail with.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system said no.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No space left.
    #[error("the disk is full; nothing was changed: cannot {action} {}", path.display())]
    DiskFull {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
    },
    /// Not allowed, or a read-only disk.
    #[error("not permitted (read-only, or another user's): cannot {action} {}", path.display())]
    NotPermitted {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
    },
    /// Nothing is there.
    #[error("there is no {}", path.display())]
    Missing {
        /// Where.
        path: PathBuf,
    },
    /// A folder, device or pipe where a plain file should be.
    #[error("{found} where a plain file is expected: {}", path.display())]
    NotAFile {
        /// What is there.
        found: &'static str,
        /// Where.
        path: PathBuf,
    },
    /// Larger than is read.
    #[error("{given} bytes; at most {limit} are read: {}", path.display())]
    TooLarge {
        /// Length.
        given: u64,
        /// Limit.
        limit: u64,
        /// Where.
        path: PathBuf,
    },
    /// Text is not UTF-8.
    #[error("not UTF-8 from byte {at}: {}", path.display())]
    NotUtf8 {
        /// First bad byte.
        at: usize,
        /// Where.
        path: PathBuf,
    },
    /// JSON does not parse.
    #[error("not valid JSON ({reason}): {}", path.display())]
    Json {
        /// What the parser says.
        reason: serde_json::Error,
        /// Where.
        path: PathBuf,
    },
    /// JSON that is not an object.
    #[error("{given} where a JSON object is expected: {}", path.display())]
    NotAnObject {
        /// What is there.
        given: &'static str,
        /// Where.
        path: PathBuf,
    },
    /// A safetensors file is bad.
    #[error("safetensors: {fault}: {}", path.display())]
    Safetensors {
        /// What is wrong.
        fault: Box<SafetensorsFault>,
        /// Where.
        path: PathBuf,
    },
    /// A GGUF file is bad.
    #[error("GGUF: {fault}: {}", path.display())]
    Gguf {
        /// What is wrong.
        fault: Box<GgufFault>,
        /// Where.
        path: PathBuf,
    },
    /// An adapter folder is bad.
    #[error("adapter: {fault}: {}", path.display())]
    Peft {
        /// What is wrong.
        fault: Box<PeftFault>,
        /// Where.
        path: PathBuf,
    },
    /// A tensor that was asked for is not there.
    #[error("no tensor {name:?} among the {count} of {}", path.display())]
    NoSuchTensor {
        /// Tensor.
        name: String,
        /// How many there are.
        count: usize,
        /// Where.
        path: PathBuf,
    },
    /// Bytes to be written do not fit their shape.
    #[error("tensor {name:?}: {given} bytes given, {expected} expected for {} {shape:?}", dtype.name())]
    TensorBytes {
        /// Tensor.
        name: String,
        /// Bytes given.
        given: usize,
        /// Bytes that shape and coding ask for.
        expected: String,
        /// Coding.
        dtype: Dtype,
        /// Shape.
        shape: Vec<usize>,
    },
    /// Neither a model folder nor a GGUF file.
    #[error("not a model: {missing} expected in {}", path.display())]
    NotAModel {
        /// What was looked for.
        missing: &'static str,
        /// Where.
        path: PathBuf,
    },
    /// Weights in a pickle file.
    #[error("weights only as a pickle file ({file}), which can run code when read; safetensors expected in {}", path.display())]
    Pickle {
        /// The file.
        file: String,
        /// The folder or file.
        path: PathBuf,
    },
    /// The tokenizer is in a form that is not read.
    #[error("no tokenizer.json ({found}): {}", path.display())]
    NoTokenizer {
        /// What is there instead.
        found: &'static str,
        /// Where.
        path: PathBuf,
    },
    /// The run folder exists already.
    #[error("the run exists already: {}", path.display())]
    RunExists {
        /// Its folder.
        path: PathBuf,
    },
    /// Another process holds the run.
    #[error("run {run} is in use by {}: {}", holder(*pid), path.display())]
    RunLocked {
        /// Name and id.
        run: String,
        /// The other process.
        pid: Option<u32>,
        /// Its folder.
        path: PathBuf,
    },
    /// A name that cannot be a folder.
    #[error("{what} {given:?}: letters, digits, '.', '-' and '_' expected, at most {limit}, no '.' first")]
    Name {
        /// Name of what.
        what: &'static str,
        /// As given.
        given: String,
        /// Most characters.
        limit: usize,
    },
    /// A file is not what was written.
    #[error("SHA-256 is {given}, {expected} expected ({bytes} bytes): {}", path.display())]
    Hash {
        /// What it is.
        given: String,
        /// What it should be.
        expected: String,
        /// Length.
        bytes: u64,
        /// Where.
        path: PathBuf,
    },
    /// A file of a checkpoint lacks or is too much.
    #[error("checkpoint lacks {file}: {}", path.display())]
    CheckpointFile {
        /// File name.
        file: String,
        /// The checkpoint.
        path: PathBuf,
    },
    /// There is no such checkpoint.
    #[error("no checkpoint of step {step}; {} there are in {}", list(steps), path.display())]
    NoCheckpoint {
        /// The step.
        step: u64,
        /// Those that are there.
        steps: Vec<u64>,
        /// The run.
        path: PathBuf,
    },
    /// A tensor that bitsandbytes quantised is not whole.
    #[error("bad quantised tensor {name:?}: {fault}: {}", path.display())]
    Quantized {
        /// The tensor.
        name: String,
        /// What is wrong.
        fault: Box<QuantizedFault>,
        /// The model.
        path: PathBuf,
    },
    /// Not a source that can be fetched.
    #[error("{given:?} is not a source: pip:package==version/path/inside ({wrong})")]
    Source {
        /// As given.
        given: String,
        /// Which part is wrong.
        wrong: &'static str,
    },
    /// Not a model of a hub.
    #[error("{given:?} is not a source: hf:organisation/name@revision ({wrong})")]
    HubSource {
        /// As given.
        given: String,
        /// Which part is wrong.
        wrong: &'static str,
    },
    /// Fetching from a hub failed.
    #[error("cannot fetch {source_name}: {fault}")]
    Hub {
        /// What was to be fetched.
        source_name: String,
        /// What went wrong.
        fault: Box<HubFault>,
    },
    /// Fetching failed.
    #[error("cannot fetch {source_name}\n{attempts}")]
    Fetch {
        /// What was to be fetched.
        source_name: String,
        /// Everything that was tried.
        attempts: Attempts,
    },
    /// The observer asked to stop.
    #[error("stopped while fetching {source_name}; nothing was kept")]
    Stopped {
        /// What was to be fetched.
        source_name: String,
    },
    /// The package does not hold the file.
    #[error("no {member:?} in it; it holds {}: {}", shown.join(", "), path.display())]
    NoMember {
        /// The file.
        member: String,
        /// The largest files it holds.
        shown: Vec<String>,
        /// The package.
        path: PathBuf,
    },
    /// The package does not open.
    #[error("not a readable package: {}", path.display())]
    Zip {
        /// Where.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: zip::result::ZipError,
    },
    /// A packed file is not what it says.
    #[error("{member:?} unpacks to {given}, {expected} expected: {}", path.display())]
    Unpacked {
        /// The file.
        member: String,
        /// What came out.
        given: String,
        /// What should come out.
        expected: String,
        /// The package.
        path: PathBuf,
    },
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".into(), |pid| format!("process {pid}"))
}

fn list(steps: &[u64]) -> String {
    if steps.is_empty() { "none".into() } else { steps.iter().map(u64::to_string).collect::<Vec<_>>().join(", ") }
}

impl StoreError {
    /// An I/O error with its place, the common kinds told apart.
    pub fn io(action: &'static str, path: &Path, source: std::io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => Self::DiskFull { action, path },
            ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => Self::NotPermitted { action, path },
            ErrorKind::NotFound if action.starts_with("read") || action.starts_with("open") => Self::Missing { path },
            _ => Self::Io { action, path, source },
        }
    }

    pub(crate) fn safetensors(path: &Path, fault: SafetensorsFault) -> Self {
        Self::Safetensors { fault: Box::new(fault), path: path.to_path_buf() }
    }

    pub(crate) fn gguf(path: &Path, fault: GgufFault) -> Self {
        Self::Gguf { fault: Box::new(fault), path: path.to_path_buf() }
    }

    pub(crate) fn peft(path: &Path, fault: PeftFault) -> Self {
        Self::Peft { fault: Box::new(fault), path: path.to_path_buf() }
    }

    /// What the user can do about it, as far as this crate knows.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Pickle { path, .. } => Some(format!(
                "convert it once, where you trust it: python3 -c \"from transformers import AutoModelForCausalLM as M, AutoTokenizer as T; p = '{0}'; \
                 M.from_pretrained(p).save_pretrained(p + '-safetensors'); T.from_pretrained(p).save_pretrained(p + '-safetensors')\"",
                path.display()
            )),
            Self::Peft { fault, .. } if matches!(**fault, PeftFault::Pickle) => {
                Some("load it once in peft, where you trust it, and save it again with save_pretrained(folder, safe_serialization=True)".into())
            }
            Self::NoTokenizer { path, .. } => Some(format!(
                "make one once: python3 -c \"from transformers import AutoTokenizer as T; T.from_pretrained('{0}').save_pretrained('{0}')\"",
                path.display()
            )),
            Self::Fetch { .. } => Some("download the model where you can, copy it here, and give its folder or GGUF file instead: [model] base = \"path/to/model\"".into()),
            Self::Hub { fault, .. } => fault.hint(),
            Self::Hash { .. } => Some("the file was changed or damaged; fetch or copy it again".into()),
            Self::DiskFull { .. } => Some("free some space, then run the same command again: it goes on where it stopped".into()),
            Self::RunLocked { .. } => Some("wait for it, or stop that process".into()),
            _ => None,
        }
    }
}

/// A name from a file as it may stand in a message: not too long.
pub(crate) fn shown(name: &str) -> String {
    const LONGEST: usize = 120;
    match name.char_indices().nth(LONGEST) {
        Some((cut, _)) => format!("{}…", &name[..cut]),
        None => name.to_owned(),
    }
}

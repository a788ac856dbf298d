// What a vat's configuration may ask for beyond the language (04 §2). Each module offers its globals by name; only the
// modules that a vat asks for are loaded at all.
export const offered = {};
export const offer = globals => Object.assign(offered, globals);

// An error as web APIs throw them, without their class.
export const named = (name, message, Constructor = Error) => Object.defineProperty(new Constructor(message), 'name', { value: name, configurable: true, writable: true });

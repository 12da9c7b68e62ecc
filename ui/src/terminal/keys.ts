/* What the keys of the bar for phones send. */
export const barKeys = [
  { label: 'Esc', bytes: '\x1b' },
  { label: 'Tab', bytes: '\t' },
  { label: '↑', bytes: '\x1b[A' },
  { label: '↓', bytes: '\x1b[B' },
  { label: '←', bytes: '\x1b[D' },
  { label: '→', bytes: '\x1b[C' },
  { label: '/', bytes: '/' },
  { label: '-', bytes: '-' },
  { label: '|', bytes: '|' },
  { label: '~', bytes: '~' },
] as const

/* The control character of a key: Ctrl and c give 0x03. Other text stays as it is. */
export function controlled(text: string): string {
  if (text.length !== 1) return text
  const code = text.toUpperCase().charCodeAt(0)
  return code >= 0x40 && code <= 0x5f ? String.fromCharCode(code - 0x40) : text
}

/* Bytes of what xterm.js gives as a binary string (mouse reports). */
export function binaryBytes(text: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(text, (char) => char.charCodeAt(0) & 0xff)
}

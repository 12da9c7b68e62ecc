/* Command lines: splitting one into an argument list, and writing a list as a line. */

const PLAIN = /^[\w@%+=:,./-]+$/

/* Writes argv so that a POSIX shell would read it back; `sh -c TEXT` is shown as its text. */
export function showCommand(argv: readonly string[]): string {
  const [program, option, text] = argv
  if (argv.length === 3 && program === 'sh' && option === '-c' && text !== undefined) return text
  return argv
    .map((part) => (PLAIN.test(part) ? part : `'${part.replaceAll("'", `'\\''`)}'`))
    .join(' ')
}

/* Splits a line as a shell does for quotes and backslashes, without expanding anything.
 * Returns null while a quote is open. */
export function splitCommand(line: string): string[] | null {
  const words: string[] = []
  let word: string | null = null
  let quote = ''
  for (let at = 0; at < line.length; at += 1) {
    const char = line.charAt(at)
    if (quote !== '') {
      if (char === quote) quote = ''
      else if (char === '\\' && quote === '"' && '"\\$`'.includes(line.charAt(at + 1))) {
        at += 1
        word = (word ?? '') + line.charAt(at)
      } else word = (word ?? '') + char
    } else if (char === '"' || char === "'") {
      quote = char
      word ??= ''
    } else if (char === '\\') {
      at += 1
      word = (word ?? '') + line.charAt(at)
    } else if (/\s/.test(char)) {
      if (word !== null) words.push(word)
      word = null
    } else word = (word ?? '') + char
  }
  if (quote !== '') return null
  if (word !== null) words.push(word)
  return words
}

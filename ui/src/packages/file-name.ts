/* Name and version from a file called NAME-VERSION.tar.gz, as the hub reads it. */

const SUFFIX = /\.(tar\.gz|tgz|zip)$/

export function isArchive(file: string): boolean {
  return SUFFIX.test(file)
}

export function fileParts(file: string): { name: string; version: string } {
  const match = /^(.+)-v?(\d[\w.+~-]*)$/.exec(file.replace(SUFFIX, ''))
  return { name: match?.[1] ?? '', version: match?.[2] ?? '' }
}

/* Copying from and pasting into a terminal.
 *
 * Ctrl-C copies when something is selected and interrupts otherwise. A paste is bounded, and one of
 * several lines is asked about first unless the program in the terminal takes it as one (bracketed paste). */
import type { Terminal } from '@xterm/xterm'

export const MAX_PASTE = 512 * 1024

export interface PasteRules {
  tooLarge: () => void
  confirmLines: (lines: number) => Promise<boolean>
}

export function attachClipboard(terminal: Terminal, element: HTMLElement, rules: PasteRules): void {
  terminal.attachCustomKeyEventHandler((event) => {
    if (!event.ctrlKey || event.key.toLowerCase() !== 'c') return true
    if (!terminal.hasSelection()) return !event.shiftKey
    if (event.type === 'keydown') {
      void navigator.clipboard.writeText(terminal.getSelection())
      terminal.clearSelection()
      event.preventDefault()
    }
    return false
  })
  const onPaste = (event: ClipboardEvent): void => {
    const text = event.clipboardData?.getData('text/plain') ?? ''
    const lines = text.replace(/\r?\n$/, '').split('\n').length
    if (text.length > MAX_PASTE) rules.tooLarge()
    else if (lines === 1 || terminal.modes.bracketedPasteMode) return
    else {
      void rules.confirmLines(lines).then((agreed) => {
        if (agreed) terminal.paste(text)
        terminal.focus()
      })
    }
    event.preventDefault()
    event.stopPropagation()
  }
  element.addEventListener('paste', onPaste, { capture: true })
}

/* The terminal is dark in both themes, as most programs' colours expect. */
import type { ITheme } from '@xterm/xterm'

export const terminalTheme: ITheme = {
  background: '#0c1215',
  foreground: '#d7e0e3',
  cursor: '#3fc7b4',
  cursorAccent: '#0c1215',
  selectionBackground: '#2b5f6a',
  scrollbarSliderBackground: '#8fa3ac33',
  scrollbarSliderHoverBackground: '#8fa3ac66',
  scrollbarSliderActiveBackground: '#8fa3ac80',
  black: '#1d272c',
  red: '#ef7068',
  green: '#5fc98a',
  yellow: '#e2b254',
  blue: '#6ea4f2',
  magenta: '#c68ae6',
  cyan: '#4cc5c9',
  white: '#cfd9dc',
  brightBlack: '#6d7f88',
  brightRed: '#ff8f86',
  brightGreen: '#82e0a6',
  brightYellow: '#f3cd7c',
  brightBlue: '#94beff',
  brightMagenta: '#dcaaf6',
  brightCyan: '#7fdfe2',
  brightWhite: '#f3f7f8',
}

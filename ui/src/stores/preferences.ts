/* Theme and language, kept in this browser. public/theme.js reads the same key before the first paint. */
import { defineStore } from 'pinia'
import { ref } from 'vue'
import { type Locale, setLocale, startLocale } from '@/i18n'

const THEME = 'mooring.theme'
const LOCALE = 'mooring.locale'

function keep(key: string, value: string): void {
  try {
    localStorage.setItem(key, value)
  } catch {
    /* a browser that keeps nothing still shows the pages */
  }
}

export const usePreferences = defineStore('preferences', () => {
  const dark = ref(document.documentElement.classList.contains('dark'))
  const locale = ref<Locale>(startLocale())

  function toggleTheme(): void {
    dark.value = !dark.value
    document.documentElement.classList.toggle('dark', dark.value)
    keep(THEME, dark.value ? 'dark' : 'light')
  }
  async function useLocale(next: Locale): Promise<void> {
    await setLocale(next)
    locale.value = next
    keep(LOCALE, next)
  }
  return { dark, locale, toggleTheme, useLocale }
})

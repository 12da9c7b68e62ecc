import { fileURLToPath } from 'node:url'
import vue from '@vitejs/plugin-vue'
import { defineConfig } from 'vite'

/* The hub serves hub/static as it is, under a content security policy without inline code. */
export default defineConfig({
  plugins: [vue()],
  resolve: { alias: { '@': fileURLToPath(new URL('./src', import.meta.url)) } },
  define: {
    __VUE_OPTIONS_API__: 'true', // Element Plus still has components that use it
    __VUE_PROD_DEVTOOLS__: 'false',
    __VUE_I18N_LEGACY_API__: 'false',
    __VUE_I18N_FULL_INSTALL__: 'false',
    __INTLIFY_PROD_DEVTOOLS__: 'false',
  },
  build: {
    outDir: '../hub/static',
    emptyOutDir: true,
    assetsInlineLimit: 0,
    target: 'es2022',
    chunkSizeWarningLimit: 700,
    rolldownOptions: {
      output: {
        // Few files instead of fifty; the terminal and the charts stay apart, for their pages only.
        codeSplitting: {
          groups: [
            { name: 'vendor', test: /node_modules(?!.*(xterm|uplot))/ },
            { name: 'frame', test: /src\/(api|components|layout|lib|live|stores)\// },
          ],
        },
      },
    },
  },
  server: {
    proxy: {
      '/api': {
        target: process.env.MOORING_URL ?? 'https://localhost:8443',
        secure: false,
        ws: true,
      },
    },
  },
})

/** What is open on the page. */
import { defineStore } from "pinia";
import { ref } from "vue";

export const useUi = defineStore("ui", () => {
  const isPaletteOpen = ref(false);
  const isKeySheetOpen = ref(false);
  const isDrawerOpen = ref(false);
  return { isPaletteOpen, isKeySheetOpen, isDrawerOpen };
});
